// Copies the licence texts from the root of the repository into the package that is about to be packed: npm takes files
// from inside the package only.
import { copyFileSync } from "node:fs";

for (const name of ["LICENSE-APACHE", "LICENSE-MIT"]) copyFileSync(new URL(`../../${name}`, import.meta.url), name);
