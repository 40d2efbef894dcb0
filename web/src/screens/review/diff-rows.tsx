import { ChevronRight, Eye } from 'lucide-react';
import { memo, useState, type ReactNode } from 'react';
import { explain } from '@/api/errors';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { CopyButton } from '@/ui/code';
import { Checkbox } from '@/ui/toggles';
import type { FileActions } from './diff-list';
import { isWhole, withoutReturn, type ReviewFile } from './diff/files';
import type { Hunk, Line } from './diff/parse';
import { changedWords, modeChange, type Note } from './diff/rows';
import type { Span } from './diff/words';
import { Counts, StatusLetter } from './marks';
import { FilePath, HiddenMark, Visible } from './visible';

export const HEADER_PX = 40;
export const NARROW_PX = 560;
/** Of a longer line only so much is shown until somebody asks. */
const LONG_LINE = 3_000;

export function FileHeader({
  file,
  open,
  width,
  actions,
  marked,
}: {
  file: ReviewFile;
  open: boolean;
  width: number;
  actions: FileActions;
  marked: boolean;
}) {
  const narrow = width < NARROW_PX;
  return (
    <div
      style={width > 0 ? { width } : undefined}
      className={cn(
        'sticky left-0 flex h-10 items-center gap-2 border-y border-line bg-raised pr-3 pl-1.5 font-sans',
        marked && 'shadow-[inset_2px_0_0_var(--accent)]',
      )}
    >
      <button
        type="button"
        aria-expanded={open}
        aria-label={`${open ? 'Fold' : 'Unfold'} ${file.name.name}`}
        onClick={() => actions.onToggle(file)}
        className="flex size-7 shrink-0 items-center justify-center rounded-md text-fg-3 hover:bg-hover hover:text-fg focus-inset pointer-coarse:size-10"
      >
        <ChevronRight aria-hidden className={cn('size-4 transition-transform', open && 'rotate-90')} />
      </button>
      <StatusLetter status={file.status} />
      <h2 className="flex min-w-0 flex-1 items-center gap-1">
        <FilePath name={file.name.name} original={file.original?.name} />
        {!narrow && <CopyButton text={file.name.name} label="Copy the name" className="-my-1" />}
      </h2>
      {file.hidden > 0 && (
        <span title="Characters that nobody would see are named in the lines below.">
          <Badge tone="warn">
            <Eye aria-hidden className="size-3" />
            {narrow ? file.hidden : `${file.hidden} hidden`}
            {narrow && <span className="sr-only">hidden characters</span>}
          </Badge>
        </span>
      )}
      <Counts added={file.added} removed={file.removed} />
      <Checkbox
        label={narrow ? <span className="sr-only">Viewed</span> : 'Viewed'}
        checked={actions.isViewed(file)}
        disabled={!file.binary && !isWhole(file)}
        onCheckedChange={(checked) => actions.onViewed(file, checked === true)}
        className="ml-1 shrink-0 gap-1.5"
      />
    </div>
  );
}

export function HunkRow({ hunk, width, marked }: { hunk: Hunk; width: number; marked: boolean }) {
  return (
    <div
      style={width > 0 ? { width } : undefined}
      className={cn(
        'sticky left-0 flex h-7 items-center gap-3 overflow-hidden bg-sunken px-3 text-xs whitespace-pre text-fg-3',
        marked && 'bg-accent-soft text-accent-fg shadow-[inset_2px_0_0_var(--accent)]',
      )}
    >
      <span>
        @@ −{hunk.oldStart},{hunk.oldCount} +{hunk.newStart},{hunk.newCount} @@
      </span>
      <span className="truncate">
        <Visible text={hunk.section} />
      </span>
    </div>
  );
}

const SIGNS = { added: '+', removed: '−', same: ' ' } as const;
const LINE_BACK = { added: 'bg-ok-soft', removed: 'bg-bad-soft', same: '' } as const;
const GUTTER_BACK = { added: 'bg-ok/10', removed: 'bg-bad/10', same: 'bg-sunken/60' } as const;
const NUMBER =
  'w-11 shrink-0 pr-2 text-right text-fg-3 tabular-nums select-none text-[11px] leading-5 group-[.changed]:text-fg-2';

export const LineRow = memo(function LineRow({
  hunk,
  line,
  wrap,
  narrow,
}: {
  hunk: Hunk;
  line: Line;
  wrap: boolean;
  /** One number instead of two. */
  narrow: boolean;
}) {
  return (
    <div
      className={cn('group flex min-h-5 leading-5', LINE_BACK[line.kind], line.kind !== 'same' && 'changed')}
    >
      <span className={cn('flex shrink-0', GUTTER_BACK[line.kind])}>
        {!narrow && <span className={NUMBER}>{line.oldNumber}</span>}
        <span className={NUMBER}>{narrow ? (line.newNumber ?? line.oldNumber) : line.newNumber}</span>
      </span>
      <Sign kind={line.kind} />
      <Code hunk={hunk} line={line} wrap={wrap} />
    </div>
  );
});

export const PairRow = memo(function PairRow({
  hunk,
  left,
  right,
}: {
  hunk: Hunk;
  left: Line | undefined;
  right: Line | undefined;
}) {
  return (
    <div className="grid min-h-5 grid-cols-2 leading-5">
      <Half hunk={hunk} line={left} number={left?.oldNumber} />
      <Half hunk={hunk} line={right} number={right?.newNumber} second />
    </div>
  );
});

function Half({
  hunk,
  line,
  number,
  second = false,
}: {
  hunk: Hunk;
  line: Line | undefined;
  number: number | undefined;
  second?: boolean;
}) {
  const edge = second ? 'border-l border-line' : '';
  if (!line) return <div aria-hidden className={cn('bg-sunken/60', edge)} />;
  return (
    <div className={cn('group flex min-w-0', LINE_BACK[line.kind], line.kind !== 'same' && 'changed', edge)}>
      <span className={cn('flex shrink-0', GUTTER_BACK[line.kind])}>
        <span className={NUMBER}>{number}</span>
      </span>
      <Sign kind={line.kind} />
      <Code hunk={hunk} line={line} wrap />
    </div>
  );
}

function Sign({ kind }: { kind: Line['kind'] }) {
  return (
    <span
      className={cn(
        'w-5 shrink-0 text-center select-none',
        kind === 'added' ? 'text-ok' : kind === 'removed' ? 'text-bad' : 'text-fg-3',
      )}
    >
      {SIGNS[kind]}
    </span>
  );
}

function Code({ hunk, line, wrap }: { hunk: Hunk; line: Line; wrap: boolean }) {
  const [whole, setWhole] = useState(false);
  const bare = withoutReturn(line.text);
  const cut = !whole && bare.length > LONG_LINE;
  const text = cut ? bare.slice(0, LONG_LINE) : bare;
  return (
    <span
      dir="ltr"
      className={cn(
        'min-w-0 flex-1 pr-3 text-fg [tab-size:4] [unicode-bidi:isolate]',
        wrap ? '[overflow-wrap:anywhere] whitespace-pre-wrap' : 'whitespace-pre',
      )}
    >
      <Words text={text} spans={changedWords(hunk, line)} kind={line.kind} />
      {line.kind !== 'same' && bare.length < line.text.length && (
        <HiddenMark mark="CR" name="U+000D CARRIAGE RETURN, at the line's end" quiet />
      )}
      {line.noNewline === true && (
        <span
          className="ml-2 rounded-xs bg-active px-1 font-sans text-[10px] text-fg-2 select-none"
          title="The file does not end with a line end."
        >
          no line end
        </span>
      )}
      {cut && (
        <button
          type="button"
          onClick={() => setWhole(true)}
          className="ml-2 rounded-sm bg-warn-soft px-1.5 font-sans text-xs font-medium text-warn select-none hover:underline"
        >
          {(bare.length - LONG_LINE).toLocaleString('en')} more characters in this line
        </button>
      )}
    </span>
  );
}

function Words({
  text,
  spans,
  kind,
}: {
  text: string;
  spans: readonly Span[];
  kind: Line['kind'];
}): ReactNode {
  if (spans.length === 0) return <Visible text={text} />;
  const parts: ReactNode[] = [];
  let done = 0;
  for (const { from, to } of spans) {
    if (from >= text.length) break;
    if (from > done) parts.push(<Visible key={`k${done}`} text={text.slice(done, from)} />);
    parts.push(
      <span key={from} className={cn('rounded-xs', kind === 'added' ? 'bg-ok/30' : 'bg-bad/30')}>
        <Visible text={text.slice(from, to)} />
      </span>,
    );
    done = to;
  }
  if (done < text.length) parts.push(<Visible key="end" text={text.slice(done)} />);
  return parts;
}

const MODES: Readonly<Record<string, string>> = {
  '100644': 'a file',
  '100755': 'a program',
  '120000': 'a link',
  '160000': 'a submodule',
};
const modeWord = (mode: string) => (MODES[mode] ? `${MODES[mode]} (${mode})` : mode);

export function NoteRow({
  file,
  note,
  width,
  actions,
}: {
  file: ReviewFile;
  note: Note;
  width: number;
  actions: FileActions;
}) {
  const modes = modeChange(file);
  const failure = actions.failure(file);
  const lines = (file.added ?? 0) + (file.removed ?? 0);
  const texts: Record<Note, string> = {
    binary: 'This is a binary file: there is no text to show.',
    large: `This change is large: ${lines.toLocaleString('en')} lines.`,
    generated: `Made by a program, most likely: ${lines.toLocaleString('en')} lines.`,
    missing: 'This file did not come with the others: the whole is too large for one answer.',
    cut: 'The rest of this file is too large to be shown here. Read it in a terminal.',
    mode: modes ? `It was ${modeWord(modes.before)} and is ${modeWord(modes.after)} now.` : '',
    empty:
      file.status === 'renamed'
        ? 'Only its name changed.'
        : file.status === 'added'
          ? 'The file is empty.'
          : file.status === 'deleted'
            ? 'The file was empty.'
            : 'There is no text to show.',
    unmerged: 'Both sides of a merge changed this file. Solve it in a terminal.',
  };
  return (
    <div
      style={width > 0 ? { width } : undefined}
      className="sticky left-0 flex min-h-15 flex-wrap items-center gap-3 px-4 py-3 font-sans text-sm text-fg-2"
    >
      <span>{texts[note]}</span>
      {(note === 'large' || note === 'generated') && (
        <Button size="sm" onClick={() => actions.onUnfold(file)}>
          Show it
        </Button>
      )}
      {note === 'missing' && (
        <>
          <Button size="sm" busy={actions.loading(file)} onClick={() => actions.onLoad(file)}>
            Load this file
          </Button>
          {failure && (
            <span role="alert" className="text-bad">
              {explain(failure).reason}
            </span>
          )}
        </>
      )}
    </div>
  );
}
