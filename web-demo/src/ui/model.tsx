import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { loadModel, progress, state, unloadModel } from "../store.ts";

/** What reads the texts, and a dialog to bring a better reader. */
export function Model(): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const folder = useRef<HTMLInputElement>(null);
  const now = state.value;
  const busy = now === undefined || progress.value !== undefined;
  const close = (): void => dialog.current?.close();
  return (
    <>
      <button type="button" class="chip" onClick={() => dialog.current?.showModal()}>Model: {now?.model ?? "built-in table"}</button>
      <dialog ref={dialog} aria-labelledby="model-title" onClick={(event) => event.target === dialog.current && close()}>
        <h2 id="model-title">Model</h2>
        <p>
          The built-in table knows the meaning of single words and is there at once. A ColBERT model reads words in their context: bring one
          in ONNX, and it ranks the best 100 texts of every search, here in the page.
        </p>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            const url = String(new FormData(event.currentTarget).get("url")).trim();
            close();
            void loadModel({ url });
          }}
        >
          <label for="model-url">Address of a folder, or a model of the Hugging Face hub</label>
          <div class="field">
            <input id="model-url" name="url" required placeholder="answerdotai/answerai-colbert-small-v1" autocomplete="off" spellcheck={false} />
            <button type="submit" class="primary" disabled={busy}>Load</button>
          </div>
        </form>
        <p>
          Or <button type="button" class="link" disabled={busy} onClick={() => folder.current?.click()}>choose a folder</button> with
          model.onnx and tokenizer.json.
        </p>
        <input
          ref={folder} type="file" hidden data-testid="model-folder" aria-label="Folder of a model" {...{ webkitdirectory: true }}
          onChange={(event) => {
            const files = [...(event.currentTarget.files ?? [])];
            event.currentTarget.value = "";
            close();
            if (files.length > 0) void loadModel({ files });
          }}
        />
        <div class="actions">
          {now?.model !== undefined && (
            <button
              type="button" disabled={busy}
              onClick={() => {
                close();
                void unloadModel();
              }}
            >
              Without {now.model}
            </button>
          )}
          <button type="button" onClick={close}>Close</button>
        </div>
      </dialog>
    </>
  );
}
