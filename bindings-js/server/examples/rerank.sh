#!/usr/bin/env bash
# Reranking with nothing but curl: `rerank.sh [URL]`, with a service at URL (`npx @maxsim/server`).
set -euo pipefail
url=${1:-http://127.0.0.1:8787}
curl -fsS "$url/v2/rerank" -H 'Content-Type: application/json' -d '{
  "query": "ships under water",
  "documents": ["a recipe for bread and butter", "the submarine dived below the sea", "taxes are due in april"],
  "top_n": 2
}'
echo
