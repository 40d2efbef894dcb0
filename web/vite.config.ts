import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import tailwindcss from '@tailwindcss/vite';
import type { PluginOption } from 'vite';
import { defineConfig } from 'vitest/config';

const server = process.env.CRAFTASTIC_SERVER;

export default defineConfig(async ({ command, mode }) => {
  const plugins: PluginOption[] = [react(), tailwindcss()];
  if (command === 'serve' && mode !== 'test' && server === undefined) {
    const { fakeApi } = await import('./dev/fake-api.ts');
    plugins.push(fakeApi());
  }
  return {
    plugins,
    resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
    server: {
      port: 5173,
      ...(server === undefined
        ? {}
        : { proxy: { '/api': { target: server, ws: true }, '/readyz': { target: server } } }),
    },
    build: {
      target: 'es2022',
      manifest: true,
      sourcemap: false,
      modulePreload: { polyfill: false },
      // Small files stay files: the page's policy allows nothing inline.
      assetsInlineLimit: 0,
    },
    test: {
      environment: 'jsdom',
      include: ['src/**/*.test.{ts,tsx}', 'dev/**/*.test.ts'],
      restoreMocks: true,
    },
  };
});
