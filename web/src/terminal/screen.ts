/** The emulator as a connection sees it: what it is told takes effect in order. */

import type { Terminal } from '@xterm/xterm';
import type { Screen } from './connection';

/** Cancels a sequence that is open, then resets the emulator with its history. */
const RESET = '\x18\x1bc';
/** One write is parsed in one go: long ones are cut, so that the page stays quick. */
const SLICE_BYTES = 128 << 10;

export function screenOf(terminal: Pick<Terminal, 'write' | 'resize'>): Screen {
  const write = (bytes: Uint8Array, shown: () => void) => {
    let start = 0;
    for (; bytes.length - start > SLICE_BYTES; start += SLICE_BYTES) {
      terminal.write(bytes.subarray(start, start + SLICE_BYTES));
    }
    terminal.write(bytes.subarray(start), shown);
  };
  return {
    write,
    replace(bytes, shown) {
      // In the stream: `Terminal.reset` would come before what still waits to be parsed.
      terminal.write(RESET);
      write(bytes, shown);
    },
    resize({ columns, rows }) {
      terminal.write('', () => terminal.resize(columns, rows));
    },
  };
}
