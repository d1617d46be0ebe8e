/* global VERSION, FILES */
// Makes the page work without a connection. `VERSION` and `FILES` are written above this when the site is built.

const CACHE = `maxsim-demo-${VERSION}`;
/** Models that visitors loaded: they outlive versions of the page. */
const MODELS = "maxsim-demo-models";

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      // "./" is what people open; servers give index.html for it.
      await cache.addAll(["./", ...FILES.filter((file) => file !== "index.html")]);
    })(),
  );
});

// A new version waits until no page of the old one is open, so that pages never meet files of another version.
self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) {
        if (name.startsWith("maxsim-demo-") && name !== CACHE && name !== MODELS) await caches.delete(name);
      }
      await self.clients.claim();
    })(),
  );
});

/** With these, workers may share memory, which models use to compute on several threads. Plain hosts do not send them. */
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin || !url.href.startsWith(self.registration.scope)) return;
  // Pages and workers say for themselves that they are isolated; all else is passed on as it is.
  const answered = answer(event, request, url);
  event.respondWith(["document", "worker"].includes(request.destination) ? answered.then(isolated) : answered);
});

function isolated(response) {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATED)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

async function answer(event, request, url) {
  const cache = await caches.open(CACHE);
  const page = request.mode === "navigate" && /(^|\/)(index\.html)?$/.test(url.pathname.slice(new URL(self.registration.scope).pathname.length));
  const kept = page ? await cache.match("./") : await cache.match(request, { ignoreVary: true });
  if (kept) return kept;
  const response = await fetch(request);
  // The rest of the site is kept when it is used: names have the hash of what is in them.
  if (response.ok && response.status === 200 && url.pathname.includes("/assets/")) event.waitUntil(cache.put(request, response.clone()));
  return response;
}
