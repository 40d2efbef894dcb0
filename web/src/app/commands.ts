import type { LucideIcon } from 'lucide-react';
import { useEffect, useRef, useSyncExternalStore } from 'react';
import { bindings, type Overrides } from './keys/bindings';
import { onMac, parseKeys, type Sequence } from './keys/chord';
import type { Bound } from './keys/sequencer';

/** Something a person can do, from the palette, by keys, or both. */
export type Command = {
  /** Stable: rebinding is stored under it. */
  id: string;
  title: string;
  /** The heading it stands under. */
  group: string;
  /** The keys it has unless a person chose others, such as `Mod+K` or `g h`. */
  keys?: string;
  icon?: LucideIcon;
  /** More words by which the palette finds it. */
  keywords?: string;
  /** Left out of the palette, for keys that only make sense as keys. */
  keysOnly?: boolean;
  enabled?: boolean;
  run: () => void;
};

function looksSame(a: readonly Command[], b: readonly Command[]): boolean {
  return (
    a.length === b.length &&
    a.every((one, index) => {
      const other = b[index];
      return (
        one.id === other?.id &&
        one.title === other.title &&
        one.keys === other.keys &&
        one.enabled === other.enabled
      );
    })
  );
}

/** All commands that can be given now. Of one id, the latest registered counts. */
export class CommandRegistry {
  readonly #groups = new Map<symbol, readonly Command[]>();
  readonly #listeners = new Set<() => void>();
  #all: readonly Command[] | undefined;

  set(owner: symbol, commands: readonly Command[]): void {
    const before = this.#groups.get(owner);
    this.#groups.set(owner, commands);
    this.#all = undefined;
    if (!before || !looksSame(before, commands)) this.#tell();
  }

  remove(owner: symbol): void {
    this.#groups.delete(owner);
    this.#all = undefined;
    this.#tell();
  }

  all = (): readonly Command[] => {
    if (!this.#all) {
      const byId = new Map<string, Command>();
      for (const commands of this.#groups.values()) {
        for (const command of commands) {
          byId.delete(command.id);
          byId.set(command.id, command);
        }
      }
      this.#all = [...byId.values()];
    }
    return this.#all;
  };

  /** Runs a command if it can be given now; says whether it did. */
  run(id: string): boolean {
    const command = this.all().find((one) => one.id === id);
    if (!command || command.enabled === false) return false;
    command.run();
    return true;
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

export const commands = new CommandRegistry();

/** Offers commands as long as the component is shown. A fresh list with each render is fine. */
export function useCommands(list: readonly Command[]): void {
  const owner = useRef<symbol>(undefined);
  useEffect(() => {
    owner.current ??= Symbol('commands');
    commands.set(owner.current, list);
  });
  useEffect(
    () => () => {
      if (owner.current) commands.remove(owner.current);
      owner.current = undefined;
    },
    [],
  );
}

export function useAllCommands(): readonly Command[] {
  return useSyncExternalStore(commands.subscribe, commands.all);
}

/** The keys that a command has now, as text; undefined where it has none. Pure. */
export function keysOf(command: Pick<Command, 'id' | 'keys'>, overrides: Overrides): string | undefined {
  const keys = overrides[command.id] ?? command.keys;
  return keys === '' ? undefined : keys;
}

/** What is bound to which keys now. Pure. */
export function boundKeys(list: readonly Command[], overrides: Overrides, mac: boolean): Bound[] {
  return list.flatMap((command) => {
    const text = keysOf(command, overrides);
    const keys: Sequence | undefined = text === undefined ? undefined : parseKeys(text, mac);
    return keys === undefined ? [] : [{ id: command.id, keys }];
  });
}

export function boundNow(): Bound[] {
  return boundKeys(
    commands.all().filter((one) => one.enabled !== false),
    bindings.get(),
    onMac,
  );
}
