import { ArrowDownToLine } from 'lucide-react';
import { memo, useEffect, useRef, useState } from 'react';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { CopyButton } from '@/ui/code';
import { blocksOf, type BuildLog, type ShownLine } from './log';

const NEAR_THE_END = 24;
const LINE_HEIGHT = 16;

/** A long log: follows its end until somebody scrolls up; what is out of view costs nothing to draw. */
export function LogView({
  log,
  label,
  className,
}: {
  log: BuildLog;
  label: string;
  className?: string | undefined;
}) {
  const box = useRef<HTMLDivElement>(null);
  const inside = useRef<HTMLDivElement>(null);
  const top = useRef(0);
  const [following, setFollowing] = useState(true);
  const { lines } = log;
  useEffect(() => {
    const [scroller, content] = [box.current, inside.current];
    if (!following || !scroller || !content) return;
    const toEnd = () => {
      scroller.scrollTop = scroller.scrollHeight;
      top.current = scroller.scrollTop;
    };
    // Blocks get their real height as they are drawn: the end moves without a new line.
    const watch = new ResizeObserver(toEnd);
    watch.observe(content);
    watch.observe(scroller);
    toEnd();
    return () => watch.disconnect();
  }, [following]);
  return (
    <div className={cn('relative flex min-h-0 flex-col', className)}>
      <div
        ref={box}
        // Scrollable, so it takes the keyboard's focus.
        // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label={label}
        onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
          const atEnd = scrollHeight - scrollTop - clientHeight < NEAR_THE_END;
          // Only somebody who goes up leaves the end: the end itself moves down.
          if (atEnd) setFollowing(true);
          else if (scrollTop < top.current) setFollowing(false);
          top.current = scrollTop;
        }}
        className="min-h-0 flex-1 overflow-auto rounded-md border border-line bg-sunken font-mono text-xs text-fg focus-inset"
      >
        <div ref={inside} className="w-full p-2.5 pr-11">
          {log.cut && <p className="pb-1 text-fg-3">… only the newest lines; Coolify’s own page has all.</p>}
          {blocksOf(lines).map((block) => (
            <Block key={block[0]?.order ?? 0} lines={block} />
          ))}
        </div>
      </div>
      <CopyButton
        text={lines.map(({ text }) => text).join('\n')}
        label="Copy the log"
        className="absolute top-1.5 right-3.5 bg-sunken"
      />
      {!following && (
        <Button
          size="sm"
          icon={ArrowDownToLine}
          onClick={() => setFollowing(true)}
          className="absolute bottom-3 left-1/2 -translate-x-1/2 shadow-md"
        >
          To the end
        </Button>
      )}
    </div>
  );
}

const Block = memo(
  function Block({ lines }: { lines: readonly ShownLine[] }) {
    return (
      <div
        className="[content-visibility:auto]"
        style={{ containIntrinsicSize: `auto ${lines.length * LINE_HEIGHT}px` }}
      >
        {lines.map(({ order, text, error }) => (
          <div
            key={order}
            className={cn(
              'min-h-4 wrap-anywhere whitespace-pre-wrap',
              error && '-ml-2.5 border-l-2 border-warn pl-2',
            )}
          >
            {text}
          </div>
        ))}
      </div>
    );
  },
  (before, after) =>
    before.lines.length === after.lines.length && before.lines[0]?.order === after.lines[0]?.order,
);
