import { useRef, useState, type KeyboardEvent, type PointerEvent, type ReactNode } from 'react';
import { cn } from './cn';

const STEP = 0.02;

/** The share after a key, or undefined where the key is not for the divider. Pure. */
export function shareAfterKey(
  key: string,
  share: number,
  { min, max, vertical, initial }: { min: number; max: number; vertical: boolean; initial: number },
): number | undefined {
  const [less, more] = vertical ? ['ArrowUp', 'ArrowDown'] : ['ArrowLeft', 'ArrowRight'];
  const wanted = {
    [less]: share - STEP,
    [more]: share + STEP,
    Home: min,
    End: max,
    Enter: initial,
  }[key];
  return wanted === undefined ? undefined : Math.min(max, Math.max(min, wanted));
}

function stored(id: string | undefined, initial: number): number {
  const text = id === undefined ? null : localStorage.getItem(`craftastic.split.${id}`);
  const share = text === null ? NaN : Number(text);
  return Number.isFinite(share) ? share : initial;
}

/**
 * Two panes and a divider that is dragged or moved with the arrow keys (Enter or a double click
 * puts it back). With an `id` the share is remembered in this browser.
 */
export function Split({
  first,
  second,
  direction = 'horizontal',
  id,
  initial = 0.5,
  min = 0.15,
  max = 0.85,
  label,
  only,
  className,
}: {
  first: ReactNode;
  second: ReactNode;
  direction?: 'horizontal' | 'vertical';
  id?: string;
  /** The first pane's share of the room, 0 to 1. */
  initial?: number;
  min?: number;
  max?: number;
  /** What the divider sizes, for screen readers. */
  label: string;
  /** Shows one of the two alone; the other goes on unseen. */
  only?: 'first' | 'second' | undefined;
  className?: string | undefined;
}) {
  const vertical = direction === 'vertical';
  const box = useRef<HTMLDivElement>(null);
  const [share, setShare] = useState(() => Math.min(max, Math.max(min, stored(id, initial))));
  const [dragging, setDragging] = useState(false);

  const keep = (next: number) => {
    setShare(next);
    if (id !== undefined) localStorage.setItem(`craftastic.split.${id}`, next.toFixed(4));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const next = shareAfterKey(event.key, share, { min, max, vertical, initial });
    if (next === undefined) return;
    event.preventDefault();
    keep(next);
  };
  const onPointerMove = (event: PointerEvent) => {
    const room = box.current?.getBoundingClientRect();
    if (!dragging || !room) return;
    const at = vertical ? (event.clientY - room.top) / room.height : (event.clientX - room.left) / room.width;
    setShare(Math.min(max, Math.max(min, at)));
  };

  return (
    <div ref={box} className={cn('flex size-full min-h-0 min-w-0', vertical && 'flex-col', className)}>
      <div
        hidden={only === 'second'}
        className="min-h-0 min-w-0 overflow-hidden"
        style={{ flex: `${only === undefined ? share : 1} 1 0` }}
      >
        {first}
      </div>
      {/* A focusable separator with a value is a widget of its own in ARIA. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-element-interactions */}
      <div
        role="separator"
        hidden={only !== undefined}
        // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        tabIndex={0}
        aria-label={label}
        aria-orientation={vertical ? 'horizontal' : 'vertical'}
        aria-valuenow={Math.round(share * 100)}
        aria-valuemin={Math.round(min * 100)}
        aria-valuemax={Math.round(max * 100)}
        data-dragging={dragging || undefined}
        onKeyDown={onKeyDown}
        onDoubleClick={() => keep(initial)}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          setDragging(true);
        }}
        onPointerMove={onPointerMove}
        onPointerUp={() => {
          setDragging(false);
          keep(share);
        }}
        onPointerCancel={() => setDragging(false)}
        className={cn(
          'relative z-10 shrink-0 touch-none bg-line transition-colors hover:bg-ring focus-visible:bg-ring data-[dragging]:bg-ring',
          // The line is thin, the place to grab it is not.
          'after:absolute',
          vertical
            ? 'h-px cursor-row-resize after:inset-x-0 after:-top-1.5 after:h-3 pointer-coarse:after:-top-4 pointer-coarse:after:h-8'
            : 'w-px cursor-col-resize after:inset-y-0 after:-left-1.5 after:w-3 pointer-coarse:after:-left-4 pointer-coarse:after:w-8',
        )}
      />
      <div
        hidden={only === 'first'}
        className="min-h-0 min-w-0 overflow-hidden"
        style={{ flex: `${only === undefined ? 1 - share : 1} 1 0` }}
      >
        {second}
      </div>
    </div>
  );
}
