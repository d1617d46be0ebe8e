/** What `maxsim` is in Node. */
export * from "@maxsim/node";
