import { useVirtualizer } from '@tanstack/react-virtual';
import { useRef, type ReactNode } from 'react';
import { cn } from './cn';

/** A long list of which only what is in view is in the page. Rows may have any height. */
export function VirtualList<T>({
  items,
  rowKey,
  estimate,
  row,
  label,
  className,
  overscan = 8,
}: {
  items: readonly T[];
  rowKey: (item: T) => string | number;
  /** A row's likely height in pixels. */
  estimate: number;
  row: (item: T, index: number) => ReactNode;
  label: string;
  className?: string | undefined;
  overscan?: number;
}) {
  'use no memo'; // The virtualizer tells of changes in its own way.
  const scroller = useRef<HTMLDivElement>(null);
  // eslint-disable-next-line react-hooks/incompatible-library
  const virtual = useVirtualizer({
    count: items.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => estimate,
    getItemKey: (index) => {
      const item = items[index];
      return item === undefined ? index : rowKey(item);
    },
    overscan,
  });
  return (
    <div
      ref={scroller}
      role="list"
      aria-label={label}
      // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
      tabIndex={0}
      className={cn('overflow-y-auto focus-inset', className)}
    >
      <div role="presentation" className="relative w-full" style={{ height: virtual.getTotalSize() }}>
        {virtual.getVirtualItems().map((place) => {
          const item = items[place.index];
          if (item === undefined) return null;
          return (
            <div
              key={place.key}
              ref={virtual.measureElement}
              role="listitem"
              aria-setsize={items.length}
              aria-posinset={place.index + 1}
              data-index={place.index}
              className="absolute top-0 left-0 w-full"
              style={{ transform: `translateY(${place.start}px)` }}
            >
              {row(item, place.index)}
            </div>
          );
        })}
      </div>
    </div>
  );
}
