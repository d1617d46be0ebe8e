import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { addFiles, progress, removeFile, state } from "../store.ts";

const size = (bytes: number): string => (bytes < 1024 ? `${bytes} bytes` : bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(0)} KB` : `${(bytes / 1024 / 1024).toFixed(1)} MB`);

/** The visitor's files. */
export function Files(): JSX.Element {
  const input = useRef<HTMLInputElement>(null);
  const now = state.value;
  const busy = progress.value !== undefined;
  return (
    <section class="files" aria-label="Your files">
      <div class="add">
        <p>Drop text files anywhere, or <button type="button" class="link" disabled={busy} onClick={() => input.current?.click()}>choose them</button>. They are cut into passages, encoded here, and kept {now?.kept === false ? "until the page is closed" : "in this browser only"}.</p>
        <input
          ref={input} type="file" multiple hidden data-testid="files" aria-label="Add text files"
          onChange={(event) => {
            void addFiles([...(event.currentTarget.files ?? [])]);
            event.currentTarget.value = "";
          }}
        />
      </div>
      {now && now.files.length > 0 && (
        <ul>
          {now.files.map(({ id, name, bytes, encoding, passages }) => (
            <li key={id}>
              <span class="name">{name}</span>
              <span class="facts">{size(bytes)} · {passages.toLocaleString("en")} {passages === 1 ? "passage" : "passages"}{encoding === "UTF-8" ? "" : ` · ${encoding}`}</span>
              <button type="button" class="plain" disabled={busy} aria-label={`Remove ${name}`} onClick={() => void removeFile(id)}>Remove</button>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
