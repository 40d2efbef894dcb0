import { useSyncExternalStore } from 'react';
import { boundNow, commands } from '../commands';
import { actsEverywhere, chordOf, type Chord } from './chord';
import { SEQUENCE_MS, step, type Pending } from './sequencer';

const TYPED_IN =
  'input:not([type=checkbox], [type=radio], [type=button], [type=submit]), textarea, select, [contenteditable]:not([contenteditable=false])';
const MODAL =
  '[role=dialog][data-state=open], [role=alertdialog][data-state=open], [role=menu][data-state=open]';

export type Place = 'page' | 'input' | 'terminal' | 'modal';

/** Where the focus is; a terminal marks itself with `data-terminal`. Its buttons type nothing into it. */
export function placeOf(target: EventTarget | null, root: ParentNode = document): Place {
  if (root.querySelector(MODAL) !== null) return 'modal';
  if (!(target instanceof Element)) return 'page';
  if (target.closest('[data-terminal]') !== null && target.closest('button, a') === null) return 'terminal';
  return target.closest(TYPED_IN) === null ? 'page' : 'input';
}

/** Whether a chord may act there. Pure. */
export function actsIn(place: Place, chord: Chord): boolean {
  if (place === 'modal') return false;
  return place === 'page' || actsEverywhere(chord);
}

let pending: Pending | undefined;
let timer: number | undefined;
const listeners = new Set<() => void>();

function setPending(next: Pending | undefined): void {
  pending = next;
  window.clearTimeout(timer);
  if (next) timer = window.setTimeout(() => setPending(undefined), SEQUENCE_MS);
  for (const listener of listeners) listener();
}

function onKeyDown(event: KeyboardEvent): void {
  if (event.isComposing || event.defaultPrevented) return;
  const chord = chordOf(event);
  if (chord === undefined) return;
  if (!actsIn(placeOf(event.target), chord)) {
    if (pending) setPending(undefined);
    return;
  }
  const next = step(boundNow(), pending, chord, performance.now());
  if (next.pending !== pending) setPending(next.pending);
  if (next.run === undefined && next.pending === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  if (next.run !== undefined && !event.repeat) commands.run(next.run);
}

/** Listens before anything else does, so that a terminal never gets a key of ours. */
export function listenToKeys(): () => void {
  window.addEventListener('keydown', onKeyDown, { capture: true });
  return () => window.removeEventListener('keydown', onKeyDown, { capture: true });
}

/** The keys of a sequence that has begun, to be shown. */
export function usePendingKeys(): readonly Chord[] | undefined {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => pending?.chords,
  );
}
