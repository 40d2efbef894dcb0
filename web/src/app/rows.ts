import type { RefObject } from 'react';
import { useCommands } from './commands';

/** The rows of a list are its links or buttons with `data-row`; `j` and `k` move the focus among them. */
export function useRowKeys(list: RefObject<HTMLElement | null>): void {
  const move = (by: 1 | -1) => {
    const rows = [...(list.current?.querySelectorAll<HTMLElement>('[data-row]') ?? [])];
    const at = rows.findIndex((row) => row === document.activeElement);
    const next = at === -1 ? (by === 1 ? rows[0] : rows.at(-1)) : rows[at + by];
    next?.focus();
  };
  useCommands([
    {
      id: 'list.next',
      title: 'Next in the list',
      group: 'Lists',
      keys: 'j',
      keysOnly: true,
      run: () => move(1),
    },
    {
      id: 'list.previous',
      title: 'Previous in the list',
      group: 'Lists',
      keys: 'k',
      keysOnly: true,
      run: () => move(-1),
    },
  ]);
}
