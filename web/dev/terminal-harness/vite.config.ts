/** The terminal alone, against a real server: `npx vite --config dev/terminal-harness/vite.config.ts`. */

import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import tailwindcss from '@tailwindcss/vite';
import { defineConfig } from 'vitest/config';

const server = process.env.CRAFTASTIC_SERVER ?? 'http://127.0.0.1:3000';
const web = fileURLToPath(new URL('../..', import.meta.url));

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  plugins: [react(), tailwindcss()],
  resolve: { alias: { '@': `${web}src` } },
  cacheDir: `${web}node_modules/.vite-terminal-harness`,
  server: {
    port: Number(process.env.PORT ?? 5174),
    strictPort: true,
    fs: { allow: [web] },
    proxy: { '/api': { target: server, ws: true } },
  },
  test: {
    root: web,
    environment: 'jsdom',
    include: ['src/terminal/**/*.test.{ts,tsx}'],
  },
});
