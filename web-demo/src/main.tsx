import { render } from "preact";
import { notify, start } from "./store.ts";
import "./style.css";
import { App } from "./ui/app.tsx";

void start();
// A task of its own: this script was one already.
setTimeout(() => render(<App />, document.getElementById("app")!));

// The page works without a connection from the second visit on. Not while developing, where files change.
if (import.meta.env.PROD && "serviceWorker" in navigator) {
  const { serviceWorker } = navigator;
  serviceWorker.register("./sw.js").then(
    (registration) =>
      registration.addEventListener("updatefound", () => {
        // Without a controller this is the first visit.
        if (serviceWorker.controller) notify("info", "There is a new version of this page. Close all its tabs to have it.");
      }),
    (error: Error) => console.warn(`not available offline: ${error.message}`),
  );
}
