// The visitor's own files.
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { choose, idle, missing, NOTES, notices, picture, results, search, visit } from "./site.mjs";

describe("own files", { skip: missing }, () => {
  let at;
  before(async () => (at = await visit({ gpu: false, path: "" })));
  after(() => at?.close());
  beforeEach(async () => {
    const dismiss = at.page.getByRole("button", { name: /^Dismiss/ });
    while ((await dismiss.count()) > 0) await dismiss.first().click();
  });
  const listed = () => at.page.locator(".files .name").allTextContents();
  const remove = async (name) => {
    await at.page.getByRole("button", { name: `Remove ${name}` }).click();
    await idle(at.page);
  };

  test("are found by meaning, with the line they stand in", async () => {
    await choose(at.page, ["harbour.txt", NOTES]);
    assert.deepEqual(await notices(at.page), ["harbour.txt can be searched now."]);
    await search(at.page, "people eating on a ship", "harbour.txt");
    const first = at.page.locator(".result").first();
    assert.match(await first.locator(".text").textContent(), /the baker brought warm bread to the crew/);
    assert.match(await first.locator("h2").textContent(), /line 6/);
    await picture(at.page, "files");
  });

  test("outlive a reload", async () => {
    await at.page.reload();
    await results(at.page);
    await at.page.getByRole("radio", { name: "Your files (1)" }).check({ force: true });
    await search(at.page, "device that sees ships in fog", "harbour.txt");
    assert.match(await at.page.locator(".result .text").first().textContent(), /radar/);
  });

  test("are replaced by a file of the same name, and removed for good", async () => {
    await choose(at.page, ["harbour.txt", "Nothing but goats on a mountain meadow."]);
    assert.deepEqual(await listed(), ["harbour.txt"]);
    await search(at.page, "animals that give milk", "harbour.txt");
    assert.deepEqual(await at.page.locator(".result .text").allTextContents(), ["Nothing but goats on a mountain meadow."]);
    await remove("harbour.txt");
    await at.page.getByText("There is nothing to search yet").waitFor();
    await at.page.reload();
    await results(at.page);
    await at.page.getByRole("radio", { name: "Your files" }).check({ force: true });
    assert.deepEqual(await listed(), []);
  });

  test("can be dropped anywhere, several at a time", async () => {
    await at.page.evaluate((text) => {
      const data = new DataTransfer();
      data.items.add(new File([text], "harbour.txt"));
      data.items.add(new File(["Snow lies on the roof of the observatory."], "winter.md"));
      const event = (type) => new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event("dragenter"));
      document.body.dispatchEvent(event("dragover"));
      document.body.dispatchEvent(event("drop"));
    }, NOTES);
    await at.page.getByText("2 files can be searched now.").waitFor();
    await search(at.page, "frozen water on a building", "winter.md");
    await remove("harbour.txt");
    await remove("winter.md");
  });

  const REFUSED = [
    ["empty.txt", "", "it is empty"],
    ["blank.txt", " \n\t\n", "there is no text in it"],
    ["noise.bin", Uint8Array.from({ length: 4096 }, (_, i) => (i * 7919) % 251), "it is not text"],
    ["paper.txt", "%PDF-1.7\n%âãÏÓ", "it is a PDF, not plain text; save it as text first"],
    ["cut.txt", Uint8Array.from([0xff, 0xfe, 0x41]), "it is not text"],
    ["huge.log", "a long line\n".repeat(500_000), "it has 5.7 MB; 5.0 MB is the most"],
  ];
  for (const [name, content, why] of REFUSED) {
    test(`${name} is refused: ${why}`, async () => {
      await choose(at.page, [name, content]);
      assert.deepEqual(await notices(at.page), [`${name} was not added: ${why}.`]);
      assert.deepEqual(await listed(), []);
    });
  }

  test("in other encodings are read, and a guess is said to be one", async () => {
    const latin = Buffer.from("Der Bäcker heißt Jürgen. He bakes bread in the café at night.", "latin1");
    const wide = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from("The café sells bread — naïvely.", "utf16le")]);
    await choose(at.page, ["latin.txt", latin], ["wide.txt", wide]);
    assert.deepEqual(await notices(at.page), ["latin.txt: it is not UTF-8 and was read as Windows-1252.", "2 files can be searched now."]);
    await search(at.page, "somebody who makes bread", /latin|wide/);
    const texts = await at.page.locator(".result .text").allTextContents();
    assert.ok(texts.includes("Der Bäcker heißt Jürgen. He bakes bread in the café at night."), texts.join());
    assert.ok(texts.includes("The café sells bread — naïvely."), texts.join());
    await remove("latin.txt");
    await remove("wide.txt");
  });

  test("that are refused do not keep good ones out", async () => {
    await choose(at.page, ["empty.txt", ""], ["good.txt", "A lamp in the cellar."], ["noise.bin", Uint8Array.of(0, 1, 2, 3)]);
    assert.deepEqual(await listed(), ["good.txt"]);
    assert.equal((await notices(at.page)).length, 3);
    await remove("good.txt");
  });
});
