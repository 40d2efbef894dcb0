import { describe, expect, it } from 'vitest';
import { randomOf } from './fakes';
import {
  activeTab,
  addTab,
  closePane,
  fill,
  focusPane,
  keepSessions,
  layoutOf,
  leaf,
  leaves,
  neighbour,
  place,
  readLayout,
  setRatio,
  split,
  toggleZoom,
  type Layout,
  type Tab,
} from './layout';

function tab(layout: Layout): Tab {
  const found = activeTab(layout);
  if (found === undefined) throw new Error('no tab');
  return found;
}
const names = (layout: Layout) => leaves(tab(layout).root).map((pane) => pane.sessionId);
const pane = (layout: Layout, name: string) => {
  const found = leaves(tab(layout).root).find((one) => one.sessionId === name);
  if (found === undefined) throw new Error(name);
  return found.id;
};

/** a | b over c */
function three(): Layout {
  return split(split(layoutOf('a'), 'right', leaf('b')), 'down', leaf('c'));
}

describe('panes', () => {
  it('are split to the right and down, and the new one has the focus', () => {
    const layout = three();
    expect(names(layout)).toEqual(['a', 'b', 'c']);
    expect(tab(layout).focused).toBe(pane(layout, 'c'));
    const { panes, dividers } = place(tab(layout).root);
    expect(panes.get(pane(layout, 'a'))).toEqual({ left: 0, top: 0, width: 50, height: 100 });
    expect(panes.get(pane(layout, 'b'))).toEqual({ left: 50, top: 0, width: 50, height: 50 });
    expect(panes.get(pane(layout, 'c'))).toEqual({ left: 50, top: 50, width: 50, height: 50 });
    expect(dividers.length).toBe(2);
  });

  it('are found by direction', () => {
    let layout = three();
    const root = tab(layout).root;
    const [a, b, c] = ['a', 'b', 'c'].map((name) => pane(layout, name)) as [string, string, string];
    expect(neighbour(root, a, 'right')).toBe(b);
    expect(neighbour(root, b, 'left')).toBe(a);
    expect(neighbour(root, b, 'down')).toBe(c);
    expect(neighbour(root, a, 'left')).toBe(null);
    const inner = tab(layout).root;
    if (inner.kind !== 'split') throw new Error('no split');
    layout = setRatio(layout, inner.second.id, 0.2);
    expect(neighbour(tab(layout).root, a, 'right')).toBe(c); // it shares more of the border
  });

  it('give their place to what is beside them when they are closed', () => {
    const layout = three();
    const closed = closePane(layout, pane(layout, 'c'));
    expect(names(closed)).toEqual(['a', 'b']);
    expect(tab(closed).focused).toBe(pane(closed, 'b'));
    const last = closePane(closePane(closed, pane(closed, 'a')), pane(closed, 'b'));
    expect(names(last)).toEqual([null]);
  });

  it('keep a share of the space', () => {
    const layout = three();
    const root = tab(layout).root;
    const sized = tab(setRatio(layout, root.id, 0.001)).root;
    expect(sized.kind === 'split' && sized.ratio).toBe(0.1);
  });

  it('are zoomed only where there is more than one', () => {
    expect(tab(toggleZoom(layoutOf('a'))).zoomed).toBe(false);
    expect(tab(toggleZoom(three())).zoomed).toBe(true);
    expect(tab(split(toggleZoom(three()), 'down', leaf('d'))).zoomed).toBe(false);
  });

  it('take a session, and go when it is gone', () => {
    let layout = split(layoutOf('a'), 'right', leaf(null));
    layout = fill(layout, tab(layout).focused, 'b');
    expect(names(layout)).toEqual(['a', 'b']);
    expect(names(keepSessions(layout, new Set(['b'])))).toEqual(['b']);
  });

  it('have the focus across tabs', () => {
    const first = layoutOf('a');
    const both = addTab(first, leaf('b'));
    expect(names(both)).toEqual(['b']);
    expect(names(focusPane(both, pane(first, 'a')))).toEqual(['a']);
  });

  it('fill their tab without a gap or an overlap, whatever was done', () => {
    for (let seed = 0; seed < 50; seed++) {
      const random = randomOf(seed);
      let layout = layoutOf('s');
      for (let step = 0; step < 40; step++) {
        const all = leaves(tab(layout).root);
        const one = all[Math.floor(random() * all.length)];
        if (one !== undefined) layout = focusPane(layout, one.id);
        const chance = random();
        if (chance < 0.5) layout = split(layout, chance < 0.25 ? 'right' : 'down', leaf(String(step)));
        else if (chance < 0.7 && one !== undefined) layout = closePane(layout, one.id);
        else layout = setRatio(layout, tab(layout).root.id, random());
        const boxes = [...place(tab(layout).root).panes.values()];
        const area = boxes.reduce((sum, box) => sum + box.width * box.height, 0);
        expect(area).toBeCloseTo(10_000, 5);
        expect(leaves(tab(layout).root).some((leafOf) => leafOf.id === tab(layout).focused)).toBe(true);
        expect(readLayout(JSON.stringify(layout))).toEqual(layout);
      }
    }
  });

  it.each([
    null,
    '',
    '{',
    '7',
    '{"tabs":[]}',
    '{"tabs":[{"id":"a","root":{"kind":"split","id":"x"}}]}',
    '{"tabs":[null]}',
  ])('are not read from %j', (kept) => {
    expect(readLayout(kept)).toBe(null);
  });
});
