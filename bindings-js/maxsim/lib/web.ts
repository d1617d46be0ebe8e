/** What `maxsim` is in browsers. */
export * from "@maxsim/web";
