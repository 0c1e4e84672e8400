#!/bin/sh
# Rebuild build/ from src/ with the locked npm packages; needs node >= 18. Leaves no node_modules behind.
set -eu
cd "$(dirname "$0")"
npm ci --ignore-scripts
npm run build
rm -rf node_modules
