import { render } from "preact";
import { start } from "./store.ts";
import "./style.css";
import { App } from "./ui/app.tsx";

void start();
// A task of its own: this script was one already.
setTimeout(() => render(<App />, document.getElementById("app")!));

// The page works without a connection from the second visit on. Not while developing, where files change.
if (import.meta.env.PROD && "serviceWorker" in navigator) {
  void navigator.serviceWorker.register("./sw.js").catch((error: Error) => console.warn(`not available offline: ${error.message}`));
}
