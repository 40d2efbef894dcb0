import { useEffect, useRef } from 'react';
import { cn } from '@/ui/cn';
import { CopyButton } from '@/ui/code';
import { plainLog } from './plain-log';

/** A job's output: follows its end until somebody scrolls up. */
export function JobLog({
  log,
  truncated,
  label,
  className,
}: {
  log: string;
  truncated: boolean;
  label: string;
  className?: string | undefined;
}) {
  const box = useRef<HTMLPreElement>(null);
  const following = useRef(true);
  const shown = plainLog(log);
  useEffect(() => {
    const pre = box.current;
    if (pre && following.current) pre.scrollTop = pre.scrollHeight;
  }, [shown]);
  if (shown === '') {
    return (
      <p className="rounded-md border border-dashed border-line px-3 py-2 text-sm text-fg-3">
        No output yet.
      </p>
    );
  }
  return (
    <div className="relative">
      <pre
        ref={box}
        // Scrollable, so it takes the keyboard's focus.
        // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label={label}
        onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
          following.current = scrollHeight - scrollTop - clientHeight < 24;
        }}
        className={cn(
          'max-h-72 overflow-auto rounded-md border border-line bg-sunken p-2.5 pr-10 font-mono text-xs wrap-anywhere whitespace-pre-wrap text-fg focus-inset',
          className,
        )}
      >
        {truncated && <span className="text-fg-3">… only the newest of it{'\n'}</span>}
        {shown}
      </pre>
      <CopyButton text={shown} label="Copy the output" className="absolute top-1 right-3 bg-sunken" />
    </div>
  );
}
