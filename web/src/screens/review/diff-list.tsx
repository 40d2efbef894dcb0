import { defaultRangeExtractor, useVirtualizer, type Range } from '@tanstack/react-virtual';
import { useCallback, useEffect, useImperativeHandle, useMemo, useRef, useState, type Ref } from 'react';
import { useWidth } from './width';
import type { ReviewFile } from './diff/files';
import { nextRow, type DiffView, type Row } from './diff/rows';
import { FileHeader, HEADER_PX, HunkRow, LineRow, NARROW_PX, NoteRow, PairRow } from './diff-rows';
import { cn } from '@/ui/cn';

const LINE_PX = 20;
const CHAR_PX = 7.25;
const GUTTER_PX = { unified: 112, split: 64 };
/** How often a jump is mended while rows on the way to it turn out higher or lower than thought. */
const MENDS = 6;

export type DiffListHandle = {
  toFile: (id: string) => void;
  step: (type: 'file' | 'hunk', by: 1 | -1) => void;
};

export type FileActions = {
  isViewed: (file: ReviewFile) => boolean;
  onViewed: (file: ReviewFile, viewed: boolean) => void;
  onToggle: (file: ReviewFile) => void;
  onUnfold: (file: ReviewFile) => void;
  onLoad: (file: ReviewFile) => void;
  loading: (file: ReviewFile) => boolean;
  failure: (file: ReviewFile) => Error | undefined;
};

/** The place of the last of some rows that is not after another; -1 before the first. Pure. */
export function lastUpTo(places: readonly number[], at: number): number {
  let [low, high] = [0, places.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((places[middle] ?? 0) <= at) low = middle + 1;
    else high = middle;
  }
  return places[low - 1] ?? -1;
}

/** All changes one below the other. Only what is in view is in the page, however long it is. */
export function DiffList({
  rows,
  view,
  wrap,
  actions,
  ref,
  onCurrent,
  className,
}: {
  rows: readonly Row[];
  view: DiffView;
  wrap: boolean;
  actions: FileActions;
  ref?: Ref<DiffListHandle>;
  /** Called with the file that is at the top. */
  onCurrent: (id: string) => void;
  className?: string | undefined;
}) {
  'use no memo'; // The virtualizer tells of changes in its own way.
  const scroller = useRef<HTMLDivElement>(null);
  const { width, setElement } = useWidth();
  const attach = useCallback(
    (element: HTMLDivElement | null) => {
      scroller.current = element;
      setElement(element);
    },
    [setElement],
  );
  const [marked, setMarked] = useState<{ key: string; said: string }>();
  const landed = useRef<{ row: number; offset: number }>(undefined);
  const headers = useMemo(() => rows.flatMap((row, place) => (row.type === 'file' ? [place] : [])), [rows]);
  const columns = Math.max(
    20,
    Math.floor((width - GUTTER_PX[width < NARROW_PX ? 'split' : 'unified']) / CHAR_PX),
  );
  const halfColumns = Math.max(12, Math.floor((width / 2 - GUTTER_PX.split) / CHAR_PX));
  const wraps = wrap || view === 'split';
  const longest = useMemo(() => (wraps ? 0 : longestLine(rows)), [rows, wraps]);

  const estimate = (place: number): number => {
    const row = rows[place];
    if (row === undefined) return LINE_PX;
    if (row.type === 'file') return HEADER_PX;
    if (row.type === 'note') return 60;
    if (row.type === 'hunk') return 28;
    if (!wraps) return LINE_PX;
    if (row.type === 'line') return LINE_PX * Math.max(1, Math.ceil(row.line.text.length / columns));
    const longer = Math.max(row.left?.text.length ?? 0, row.right?.text.length ?? 0);
    return LINE_PX * Math.max(1, Math.ceil(longer / halfColumns));
  };
  const withHeader = useCallback(
    (range: Range) => {
      const header = lastUpTo(headers, range.startIndex);
      const shown = defaultRangeExtractor(range);
      return header === -1 || shown.includes(header) ? shown : [header, ...shown];
    },
    [headers],
  );
  // eslint-disable-next-line react-hooks/incompatible-library
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: estimate,
    getItemKey: (place) => rows[place]?.key ?? place,
    rangeExtractor: withHeader,
    overscan: 16,
  });
  const top = virtual.range?.startIndex ?? 0;
  const sticky = lastUpTo(headers, top);
  const topRow = rows[sticky === -1 ? 0 : sticky];
  const current = topRow?.file.id;
  useEffect(() => {
    if (current !== undefined) onCurrent(current);
  }, [current, onCurrent]);

  const go = (place: number) => {
    // A file's header stands at the top; anything else below the header of its file.
    const room = rows[place]?.type === 'file' ? 0 : HEADER_PX;
    let mends = MENDS;
    const move = () => {
      const offset = virtual.getOffsetForIndex(place, 'start')?.[0];
      if (offset === undefined) return;
      const wanted = Math.max(0, offset - room);
      virtual.scrollToOffset(wanted);
      mends -= 1;
      if (mends > 0) {
        requestAnimationFrame(() => {
          const again = virtual.getOffsetForIndex(place, 'start')?.[0];
          if (again !== undefined && Math.abs(again - offset) > 1) move();
          else landed.current = { row: place, offset: scroller.current?.scrollTop ?? wanted };
        });
      }
    };
    move();
    landed.current = { row: place, offset: scroller.current?.scrollTop ?? 0 };
  };
  const atTop = () => {
    const offset = scroller.current?.scrollTop ?? 0;
    // At the end the list scrolls no further: then it goes on from where the last step went.
    if (landed.current && Math.abs(landed.current.offset - offset) <= 2) return landed.current.row;
    return virtual.getVirtualItemForOffset(offset + HEADER_PX + 1)?.index ?? 0;
  };
  useImperativeHandle(ref, () => ({
    toFile: (id) => {
      const place = rows.findIndex((row) => row.type === 'file' && row.file.id === id);
      if (place !== -1) go(place);
    },
    step: (type, by) => {
      const place = nextRow(rows, atTop(), by, type);
      const row = place === undefined ? undefined : rows[place];
      if (place === undefined || row === undefined) {
        setMarked((before) => before && { ...before, said: by === 1 ? 'No more.' : 'This is the first.' });
        return;
      }
      go(place);
      setMarked({ key: row.key, said: describe(row) });
      onCurrent(row.file.id);
    },
  }));

  return (
    <div
      ref={attach}
      role="region"
      aria-label="Changes"
      // Scrollable, so it takes the keyboard's focus.
      // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
      tabIndex={0}
      className={cn('overflow-auto overscroll-contain focus-inset', className)}
    >
      <p role="status" className="sr-only">
        {marked?.said}
      </p>
      <div
        className="relative min-w-full"
        style={{
          height: virtual.getTotalSize(),
          ...(longest > 0 ? { width: `max(100%, calc(${longest}ch + ${GUTTER_PX.unified + 16}px))` } : {}),
          // `ch` above and the lines below are of the same font.
          fontFamily: 'var(--font-mono)',
          fontSize: 12,
        }}
      >
        {virtual.getVirtualItems().map((place) => {
          const row = rows[place.index];
          if (row === undefined) return null;
          const stuck = place.index === sticky;
          return (
            <div
              key={place.key}
              ref={virtual.measureElement}
              data-index={place.index}
              className={cn('left-0 w-full', stuck ? 'sticky top-0 z-20' : 'absolute top-0', {
                'z-30': row.type === 'file' && !stuck,
              })}
              style={stuck ? undefined : { transform: `translateY(${place.start}px)` }}
            >
              <RowView
                row={row}
                wrap={wraps}
                width={width}
                actions={actions}
                marked={marked?.key === row.key}
              />
            </div>
          );
        })}
      </div>
    </div>
  );
}

function RowView({
  row,
  wrap,
  width,
  actions,
  marked,
}: {
  row: Row;
  wrap: boolean;
  width: number;
  actions: FileActions;
  marked: boolean;
}) {
  switch (row.type) {
    case 'file':
      return <FileHeader file={row.file} open={row.open} width={width} actions={actions} marked={marked} />;
    case 'note':
      return <NoteRow file={row.file} note={row.note} width={width} actions={actions} />;
    case 'hunk':
      return <HunkRow hunk={row.hunk} width={width} marked={marked} />;
    case 'line':
      return <LineRow hunk={row.hunk} line={row.line} wrap={wrap} narrow={width < NARROW_PX} />;
    case 'pair':
      return <PairRow hunk={row.hunk} left={row.left} right={row.right} />;
  }
}

function describe(row: Row): string {
  if (row.type === 'hunk') {
    const { newStart, newCount, oldStart } = row.hunk;
    return `${row.file.name.name}, line ${newCount === 0 ? oldStart : newStart}`;
  }
  return row.file.name.name;
}

function longestLine(rows: readonly Row[]): number {
  let longest = 0;
  for (const row of rows) {
    if (row.type === 'line') longest = Math.max(longest, row.line.text.length + tabs(row.line.text) * 3);
  }
  return Math.min(longest, 3_000);
}

function tabs(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\t'); at !== -1; at = text.indexOf('\t', at + 1)) count += 1;
  return count;
}
