import { describe, expect, it, vi } from 'vitest';
import { boundKeys, CommandRegistry, commands, type Command } from '../commands';
import { Bindings, bindings, parseOverrides } from './bindings';
import { actsEverywhere, chordOf, keyCaps, parseKeys, type KeyPress } from './chord';
import { actsIn, listenToKeys, placeOf } from './listen';
import { conflicts, SEQUENCE_MS, step, type Bound, type Pending } from './sequencer';

function press(key: string, mods: Partial<KeyPress> = {}): KeyPress {
  return { key, code: '', ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...mods };
}

describe('chords', () => {
  it('means the same key, pressed or written', () => {
    const pairs: [KeyPress, string][] = [
      [press('k', { ctrlKey: true }), 'Ctrl+K'],
      [press('K', { ctrlKey: true, shiftKey: true }), 'ctrl+shift+k'],
      [press('?', { shiftKey: true }), '?'],
      [press('+', { ctrlKey: true, shiftKey: true }), 'Ctrl++'],
      [press('ArrowUp', { altKey: true }), 'Alt+Up'],
      [press(' '), 'Space'],
      [press('Escape'), 'Esc'],
    ];
    for (const [pressed, written] of pairs) expect(parseKeys(written, false)).toEqual([chordOf(pressed)]);
  });

  it('goes by the place of the key where another script is written', () => {
    expect(chordOf(press('л', { ctrlKey: true, code: 'KeyK' }))).toBe('ctrl+k');
    expect(chordOf(press('˚', { altKey: true, metaKey: true, code: 'KeyK' }))).toBe('meta+alt+k');
  });

  it('takes AltGr for a way to write, and modifiers alone for nothing', () => {
    expect(chordOf(press('@', { ctrlKey: true, altKey: true, code: 'Digit2' }))).toBe('@');
    expect(chordOf(press('Shift', { shiftKey: true }))).toBeUndefined();
  });

  it('has Mod as the command key on a Mac and Ctrl elsewhere', () => {
    expect(parseKeys('Mod+Shift+P', true)).toEqual(['meta+shift+p']);
    expect(parseKeys('Mod+Shift+P', false)).toEqual(['ctrl+shift+p']);
    expect(keyCaps('meta+shift+p', true)).toEqual(['⌘', '⇧', 'P']);
    expect(keyCaps('ctrl++', false)).toEqual(['Ctrl', '+']);
  });

  it('refuses what is no key', () => {
    for (const text of ['', 'Hyper+K', 'Ctrl+', ' ']) expect(parseKeys(text, false)).toBeUndefined();
  });
});

describe('sequences', () => {
  const bound: Bound[] = [
    { id: 'home', keys: ['g', 'h'] },
    { id: 'envs', keys: ['g', 'e'] },
    { id: 'new', keys: ['c'] },
    { id: 'palette', keys: ['ctrl+k'] },
  ];
  const type = (...pressed: [string, number][]): string[] => {
    let pending: Pending | undefined;
    return pressed.flatMap(([chord, now]) => {
      const next = step(bound, pending, chord, now);
      pending = next.pending;
      return next.run ?? [];
    });
  };

  it('runs single keys at once and sequences at their end', () => {
    expect(type(['c', 0], ['g', 10], ['h', 20], ['ctrl+k', 30])).toEqual(['new', 'home', 'palette']);
  });

  it('forgets a beginning after a pause', () => {
    expect(type(['g', 0], ['h', SEQUENCE_MS])).toEqual(['home']);
    expect(type(['g', 0], ['h', SEQUENCE_MS + 1])).toEqual([]);
  });

  it('begins anew with a key that leads nowhere', () => {
    expect(type(['g', 0], ['c', 10])).toEqual(['new']);
    expect(type(['g', 0], ['g', 10], ['e', 20])).toEqual(['envs']);
    expect(type(['g', 0], ['x', 10], ['h', 20])).toEqual([]);
  });

  it('gives keys that two have to the one that came last', () => {
    expect(step([...bound, { id: 'screen', keys: ['c'] }], undefined, 'c', 0)).toEqual({ run: 'screen' });
  });

  it('finds what is in the way of new keys', () => {
    expect(conflicts(bound, 'x', ['g'])).toEqual(['home', 'envs']);
    expect(conflicts(bound, 'x', ['c', 'd'])).toEqual(['new']);
    expect(conflicts(bound, 'new', ['c'])).toEqual([]);
    expect(conflicts(bound, 'x', ['d'])).toEqual([]);
  });
});

describe('rebinding', () => {
  const command = (id: string, keys?: string): Command => ({
    id,
    title: id,
    group: 'g',
    run: () => undefined,
    ...(keys === undefined ? {} : { keys }),
  });

  it('puts a choice over the command’s own keys, takes keys away, and gives them back', () => {
    const list = [command('a', 'g a'), command('b', 'b'), command('none')];
    expect(boundKeys(list, { a: 'Mod+J', b: '' }, false)).toEqual([{ id: 'a', keys: ['ctrl+j'] }]);
    expect(boundKeys(list, { none: 'x' }, false).map((one) => one.id)).toEqual(['a', 'b', 'none']);
  });

  it('is kept in the browser and read again', () => {
    const items = new Map<string, string>();
    const storage = {
      getItem: (key: string) => items.get(key) ?? null,
      setItem: (key: string, value: string) => void items.set(key, value),
    };
    const told = vi.fn();
    const first = new Bindings(storage);
    first.subscribe(told);
    first.set('a', 'x');
    first.set('b', '');
    expect(new Bindings(storage).get()).toEqual({ a: 'x', b: '' });
    first.set('a', null);
    expect(new Bindings(storage).get()).toEqual({ b: '' });
    first.reset();
    expect(new Bindings(storage).get()).toEqual({});
    expect(told).toHaveBeenCalledTimes(4);
  });

  it('survives whatever is stored', () => {
    for (const stored of ['', 'null', '[1]', '{"a":1}', 'no json'])
      expect(parseOverrides(stored)).toEqual({});
    expect(parseOverrides('{"a":"x","b":2}')).toEqual({ a: 'x' });
  });
});

describe('where keys act', () => {
  it('acts in inputs and terminals only with Ctrl or ⌘ and Shift', () => {
    for (const place of ['input', 'terminal'] as const) {
      expect(actsIn(place, 'c')).toBe(false);
      expect(actsIn(place, 'ctrl+k')).toBe(false);
      expect(actsIn(place, 'ctrl+shift+p')).toBe(true);
      expect(actsIn(place, 'meta+shift+p')).toBe(true);
    }
    expect(actsIn('modal', 'ctrl+shift+p')).toBe(false);
    expect(actsEverywhere('alt+shift+p')).toBe(false);
  });

  it('tells the places apart', () => {
    document.body.innerHTML =
      '<button id="b"></button><input id="i"><input id="c" type="checkbox"><div data-terminal><textarea id="t"></textarea></div>';
    const place = (id: string) => placeOf(document.getElementById(id));
    expect([place('b'), place('i'), place('c'), place('t')]).toEqual(['page', 'input', 'page', 'terminal']);
    document.body.innerHTML += '<div role="dialog" data-state="open"></div>';
    expect(place('b')).toBe('modal');
    document.body.innerHTML = '';
  });

  it('runs a command by its keys on the page, by new ones after rebinding, and never in a field', () => {
    const run = vi.fn();
    const owner = Symbol('test');
    commands.set(owner, [{ id: 'test', title: 'Test', group: 'Test', keys: 'x y', run }]);
    const end = listenToKeys();
    document.body.innerHTML = '<button></button><input>';
    const send = (target: string, key: string, mods: KeyboardEventInit = {}) =>
      document
        .querySelector(target)
        ?.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true, ...mods }));
    send('button', 'x');
    send('button', 'y');
    expect(run).toHaveBeenCalledTimes(1);
    send('input', 'x');
    send('input', 'y');
    expect(run).toHaveBeenCalledTimes(1);
    bindings.set('test', 'ctrl+shift+y');
    send('button', 'x');
    send('button', 'y');
    expect(run).toHaveBeenCalledTimes(1);
    send('input', 'Y', { ctrlKey: true, shiftKey: true });
    expect(run).toHaveBeenCalledTimes(2);
    bindings.reset();
    end();
    commands.remove(owner);
    document.body.innerHTML = '';
  });
});

describe('the command registry', () => {
  it('lets the latest of one id count, and the earlier one again after it is gone', () => {
    const registry = new CommandRegistry();
    const told = vi.fn();
    registry.subscribe(told);
    const ran: string[] = [];
    const one = (name: string): Command => ({
      id: 'same',
      title: name,
      group: 'g',
      run: () => ran.push(name),
    });
    const [page, screen] = [Symbol('page'), Symbol('screen')];
    registry.set(page, [one('page')]);
    registry.set(screen, [one('screen')]);
    registry.run('same');
    registry.remove(screen);
    registry.run('same');
    expect(ran).toEqual(['screen', 'page']);
    expect(told).toHaveBeenCalledTimes(3);
    registry.set(page, [one('page')]);
    expect(told).toHaveBeenCalledTimes(3);
  });

  it('does not run what cannot be done now', () => {
    const registry = new CommandRegistry();
    const run = vi.fn();
    registry.set(Symbol('x'), [{ id: 'a', title: 'A', group: 'g', enabled: false, run }]);
    expect(registry.run('a')).toBe(false);
    expect(registry.run('absent')).toBe(false);
    expect(run).not.toHaveBeenCalled();
  });
});
