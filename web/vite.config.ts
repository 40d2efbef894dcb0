import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import tailwindcss from '@tailwindcss/vite';
import type { PluginOption, Rolldown } from 'vite';
import { defineConfig } from 'vitest/config';

const server = process.env.CRAFTASTIC_SERVER;

/** Into which files the page is cut. */
const output: Rolldown.OutputOptions = {
  // The groups' own names tell who shares them, all of them.
  chunkFileNames: ({ name }) => `assets/${name.startsWith('shared') ? 'shared' : '[name]'}-[hash].js`,
  codeSplitting: {
    groups: [
      // What every screen needs comes as one file, and nothing else with it.
      { name: 'initial', tags: ['$initial'], priority: 2 },
      // Parts that several screens share: by themselves they would be dozens of small files, each of which
      // has to be asked for. Terminals are large and stay apart.
      {
        name: 'shared',
        test: (id) => !/[\\/](?:xterm|addon-|src[\\/]terminal[\\/])/.test(id),
        minShareCount: 2,
        entriesAware: true,
        entriesAwareMergeThreshold: 30_000,
        priority: 1,
      },
    ],
  },
};

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
      rolldownOptions: { output },
    },
    test: {
      environment: 'jsdom',
      include: ['src/**/*.test.{ts,tsx}', 'dev/**/*.test.ts'],
      restoreMocks: true,
    },
  };
});
