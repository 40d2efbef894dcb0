/** Where the panes of a workspace are: tabs, each a tree of splits. Pure. */

export type Direction = 'left' | 'right' | 'up' | 'down';
export type SplitDirection = 'right' | 'down';

/** One pane; without a session it asks for one. */
export type Leaf = { kind: 'leaf'; id: string; sessionId: string | null };
/** `ratio` is the first part's share of the space. */
export type Split = {
  kind: 'split';
  id: string;
  direction: SplitDirection;
  ratio: number;
  first: Node;
  second: Node;
};
export type Node = Leaf | Split;
export type Tab = { id: string; root: Node; focused: string; zoomed: boolean };
export type Layout = { tabs: Tab[]; active: string };

/** A place in per cent of the workspace. */
export type Box = { left: number; top: number; width: number; height: number };
export type Divider = { split: Split; box: Box; /** The whole split. */ whole: Box };

export const SMALLEST_RATIO = 0.1;
const MAX_PANES = 16;
const MAX_TABS = 32;

export const newId = (): string => crypto.randomUUID();

export function leaf(sessionId: string | null): Leaf {
  return { kind: 'leaf', id: newId(), sessionId };
}

export function tabOf(pane: Leaf): Tab {
  return { id: newId(), root: pane, focused: pane.id, zoomed: false };
}

export function layoutOf(sessionId: string | null): Layout {
  const tab = tabOf(leaf(sessionId));
  return { tabs: [tab], active: tab.id };
}

export function leaves(node: Node): Leaf[] {
  return node.kind === 'leaf' ? [node] : [...leaves(node.first), ...leaves(node.second)];
}

export function activeTab(layout: Layout): Tab | undefined {
  return layout.tabs.find((tab) => tab.id === layout.active) ?? layout.tabs[0];
}

/** Return the tree with one node put in another's place; null takes it out. */
function put(node: Node, id: string, by: (found: Node) => Node | null): Node | null {
  if (node.id === id) return by(node);
  if (node.kind === 'leaf') return node;
  const first = put(node.first, id, by);
  const second = put(node.second, id, by);
  if (first === null) return second;
  if (second === null) return first;
  return first === node.first && second === node.second ? node : { ...node, first, second };
}

function changeTab(layout: Layout, id: string, by: (tab: Tab) => Tab): Layout {
  return { ...layout, tabs: layout.tabs.map((tab) => (tab.id === id ? by(tab) : tab)) };
}

/** Split the pane that has the focus; the new pane gets it. */
export function split(layout: Layout, direction: SplitDirection, pane: Leaf): Layout {
  const tab = activeTab(layout);
  if (tab === undefined || leaves(tab.root).length >= MAX_PANES) return layout;
  const parted = (found: Node): Split => ({
    kind: 'split',
    id: newId(),
    direction,
    ratio: 0.5,
    first: found,
    second: pane,
  });
  const root = put(tab.root, tab.focused, parted) ?? pane;
  return changeTab(layout, tab.id, () => ({ ...tab, root, focused: pane.id, zoomed: false }));
}

/** Close a pane; a tab without panes goes with it. */
export function closePane(layout: Layout, id: string): Layout {
  const tab = layout.tabs.find((one) => leaves(one.root).some((pane) => pane.id === id));
  if (tab === undefined) return layout;
  const before = leaves(tab.root);
  const root = put(tab.root, id, () => null);
  if (root === null) return closeTab(layout, tab.id);
  const next = before[Math.max(before.findIndex((pane) => pane.id === id) - 1, 0)];
  const stays = leaves(root).find((pane) => pane.id === (tab.focused === id ? next?.id : tab.focused));
  const focused = (stays ?? leaves(root)[0])?.id ?? tab.focused;
  return changeTab(layout, tab.id, () => ({ ...tab, root, focused, zoomed: false }));
}

export function addTab(layout: Layout, pane: Leaf): Layout {
  if (layout.tabs.length >= MAX_TABS) return layout;
  const tab = tabOf(pane);
  return { tabs: [...layout.tabs, tab], active: tab.id };
}

export function closeTab(layout: Layout, id: string): Layout {
  const at = layout.tabs.findIndex((tab) => tab.id === id);
  const tabs = layout.tabs.filter((tab) => tab.id !== id);
  if (tabs.length === 0) return layoutOf(null);
  const active = layout.active === id ? (tabs[Math.max(at - 1, 0)]?.id ?? '') : layout.active;
  return { tabs, active };
}

export function focusPane(layout: Layout, id: string): Layout {
  const tab = layout.tabs.find((one) => leaves(one.root).some((pane) => pane.id === id));
  if (tab === undefined || (tab.focused === id && layout.active === tab.id)) return layout;
  return { ...changeTab(layout, tab.id, () => ({ ...tab, focused: id })), active: tab.id };
}

/** Give a pane a session. */
export function fill(layout: Layout, id: string, sessionId: string): Layout {
  const filled = (found: Node): Node => (found.kind === 'leaf' ? { ...found, sessionId } : found);
  return {
    ...layout,
    tabs: layout.tabs.map((tab) => ({ ...tab, root: put(tab.root, id, filled) ?? tab.root })),
  };
}

export function setRatio(layout: Layout, id: string, ratio: number): Layout {
  const kept = Math.min(Math.max(ratio, SMALLEST_RATIO), 1 - SMALLEST_RATIO);
  const sized = (found: Node): Node => (found.kind === 'split' ? { ...found, ratio: kept } : found);
  return {
    ...layout,
    tabs: layout.tabs.map((tab) => ({ ...tab, root: put(tab.root, id, sized) ?? tab.root })),
  };
}

export function toggleZoom(layout: Layout): Layout {
  return changeTab(layout, layout.active, (tab) =>
    tab.root.kind === 'leaf' ? tab : { ...tab, zoomed: !tab.zoomed },
  );
}

export const WHOLE: Box = { left: 0, top: 0, width: 100, height: 100 };

/** Return where each pane and each divider of a tree is. */
export function place(node: Node, box: Box = WHOLE): { panes: Map<string, Box>; dividers: Divider[] } {
  if (node.kind === 'leaf') return { panes: new Map([[node.id, box]]), dividers: [] };
  const across = node.direction === 'right';
  const length = across ? box.width : box.height;
  const part = length * node.ratio;
  const firstBox = across ? { ...box, width: part } : { ...box, height: part };
  const secondBox = across
    ? { ...box, left: box.left + part, width: length - part }
    : { ...box, top: box.top + part, height: length - part };
  const first = place(node.first, firstBox);
  const second = place(node.second, secondBox);
  const line = across ? { ...secondBox, width: 0 } : { ...secondBox, height: 0 };
  return {
    panes: new Map([...first.panes, ...second.panes]),
    dividers: [{ split: node, box: line, whole: box }, ...first.dividers, ...second.dividers],
  };
}

/** Return the pane beside this one, the one that shares the most of the border. */
export function neighbour(root: Node, id: string, direction: Direction): string | null {
  const { panes } = place(root);
  const from = panes.get(id);
  if (from === undefined) return null;
  const across = direction === 'left' || direction === 'right';
  const near = 0.01;
  let best: { id: string; shared: number } | null = null;
  for (const [other, box] of panes) {
    const gap = {
      left: from.left - (box.left + box.width),
      right: box.left - (from.left + from.width),
      up: from.top - (box.top + box.height),
      down: box.top - (from.top + from.height),
    }[direction];
    if (other === id || Math.abs(gap) > near) continue;
    const shared = across
      ? overlap(from.top, from.height, box.top, box.height)
      : overlap(from.left, from.width, box.left, box.width);
    if (shared > near && (best === null || shared > best.shared)) best = { id: other, shared };
  }
  return best?.id ?? null;
}

function overlap(start: number, length: number, otherStart: number, otherLength: number): number {
  return Math.min(start + length, otherStart + otherLength) - Math.max(start, otherStart);
}

/** Read a layout that was kept; null when it is none. */
export function readLayout(text: string | null): Layout | null {
  try {
    const value: unknown = JSON.parse(text ?? 'null');
    if (!isRecord(value) || !Array.isArray(value.tabs) || value.tabs.length > MAX_TABS) return null;
    const tabs = value.tabs.map(readTab).filter((tab) => tab !== null);
    const [first] = tabs;
    if (first === undefined) return null;
    return { tabs, active: tabs.find((tab) => tab.id === value.active)?.id ?? first.id };
  } catch {
    return null;
  }
}

function readTab(value: unknown): Tab | null {
  if (!isRecord(value) || typeof value.id !== 'string') return null;
  const root = readNode(value.root, 0);
  const panes = root === null ? [] : leaves(root);
  const [first] = panes;
  if (root === null || first === undefined || panes.length > MAX_PANES) return null;
  const focused = panes.find((pane) => pane.id === value.focused)?.id ?? first.id;
  return { id: value.id, root, focused, zoomed: value.zoomed === true && panes.length > 1 };
}

function readNode(value: unknown, depth: number): Node | null {
  if (!isRecord(value) || typeof value.id !== 'string' || depth > MAX_PANES) return null;
  const { id, sessionId, direction, ratio } = value;
  if (value.kind === 'leaf') {
    return { kind: 'leaf', id, sessionId: typeof sessionId === 'string' ? sessionId : null };
  }
  const first = readNode(value.first, depth + 1);
  const second = readNode(value.second, depth + 1);
  if (value.kind !== 'split' || first === null || second === null) return first ?? second;
  if (direction !== 'right' && direction !== 'down') return first;
  const share =
    typeof ratio === 'number' && ratio >= SMALLEST_RATIO && ratio <= 1 - SMALLEST_RATIO ? ratio : 0.5;
  return { kind: 'split', id, direction, ratio: share, first, second };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** Take out the panes of sessions that are gone; what is left keeps its place. */
export function keepSessions(layout: Layout, known: ReadonlySet<string>): Layout {
  let kept = layout;
  for (const tab of layout.tabs) {
    for (const pane of leaves(tab.root)) {
      if (pane.sessionId !== null && !known.has(pane.sessionId)) kept = closePane(kept, pane.id);
    }
  }
  return kept;
}
