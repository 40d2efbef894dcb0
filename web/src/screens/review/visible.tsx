import { Fragment, memo } from 'react';
import { hasHidden, pieces } from './diff/hidden';
import { cn } from '@/ui/cn';

/** A text from a repository, in which nothing hides: characters that are not seen are named. */
export const Visible = memo(function Visible({ text }: { text: string }) {
  if (!hasHidden(text)) return text;
  return pieces(text).map((piece, index) =>
    'text' in piece ? (
      <Fragment key={index}>{piece.text}</Fragment>
    ) : (
      <HiddenMark key={index} mark={piece.mark} name={piece.name} />
    ),
  );
});

/** The same for a text of several lines: where a line ends is no secret. */
export function VisibleLines({ text }: { text: string }) {
  return text.split(/\r?\n/u).map((line, index) => (
    <Fragment key={index}>
      {index > 0 && '\n'}
      <Visible text={line} />
    </Fragment>
  ));
}

export function HiddenMark({ mark, name, quiet = false }: { mark: string; name: string; quiet?: boolean }) {
  return (
    <span
      title={name}
      className={cn(
        'mx-px rounded-xs px-0.5 font-sans text-[10px] font-semibold [unicode-bidi:isolate]',
        quiet ? 'text-fg-3' : 'bg-warn-soft text-warn outline outline-warn/50',
      )}
    >
      {mark}
    </span>
  );
}

/** A file's name: its folder quieter than the name itself, what it was called before it. */
export function FilePath({
  name,
  original,
  className,
}: {
  name: string;
  original?: string | undefined;
  className?: string | undefined;
}) {
  const cut = name.lastIndexOf('/') + 1;
  return (
    <span
      className={cn('flex min-w-0 items-baseline font-mono text-xs', className)}
      title={original === undefined ? name : `${original} → ${name}`}
    >
      {original !== undefined && (
        <span className="mr-1.5 min-w-0 shrink-[3] truncate text-fg-3">
          <Visible text={original} /> <span aria-label="renamed to">→</span>
        </span>
      )}
      {cut > 0 && (
        <span className="min-w-0 shrink-[2] truncate text-fg-3">
          <Visible text={name.slice(0, cut)} />
        </span>
      )}
      <span className="min-w-12 truncate font-semibold text-fg">
        <Visible text={name.slice(cut)} />
      </span>
    </span>
  );
}
