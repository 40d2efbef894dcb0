import { ClipboardCopy, ClipboardPaste } from 'lucide-react';
import { useId, useState, type KeyboardEvent } from 'react';
import { Button } from '@/ui/button';
import { Textarea } from '@/ui/input';
import { Bar } from './banner';
import type { Question } from './live';
import { amount, preview, type Paste } from './text';

export type Answers = {
  answer(yes: boolean, forSession?: boolean): void;
  answerPasteBox(text: string): void;
};

/** A question about the clipboard. Escape says no. */
export function QuestionBar({ question, answers }: { question: Question; answers: Answers }) {
  const escape = (event: KeyboardEvent) => {
    if (event.key !== 'Escape') return;
    event.preventDefault();
    event.stopPropagation();
    answers.answer(false);
  };
  return (
    // The keys of a whole dialog are listened to in one place.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-element-interactions
    <div role="alertdialog" aria-label={LABELS[question.kind]} onKeyDown={escape}>
      {question.kind === 'paste' && <PasteQuestion paste={question.paste} answers={answers} />}
      {question.kind === 'copy' && <CopyQuestion text={question.text} answers={answers} />}
      {question.kind === 'paste-box' && <PasteBox answers={answers} />}
    </div>
  );
}

const LABELS: Record<Question['kind'], string> = {
  paste: 'Paste into the terminal?',
  copy: 'Copy to the clipboard?',
  'paste-box': 'Text to paste',
};

/** Say what about a paste deserves a question. */
export function pasteReasons({ lines, bytes, removed, ask }: Extract<Paste, { kind: 'paste' }>): string {
  const what = lines === 1 ? `1 line, ${amount(bytes)}` : `${lines} lines, ${amount(bytes)}`;
  const said = [`Paste ${what}?`];
  if (ask.includes('lines')) said.push('The program obeys each line at once.');
  if (removed > 0) said.push(`${removed} control character${removed === 1 ? ' was' : 's were'} left out.`);
  return said.join(' ');
}

function PasteQuestion({ paste, answers }: { paste: Extract<Paste, { kind: 'paste' }>; answers: Answers }) {
  return (
    <Bar
      icon={<ClipboardPaste aria-hidden className="size-4 shrink-0 text-fg-3" />}
      actions={
        <>
          <Button size="sm" variant="ghost" onClick={() => answers.answer(false)}>
            Cancel
          </Button>
          <Button size="sm" variant="primary" autoFocus onClick={() => answers.answer(true)}>
            Paste
          </Button>
        </>
      }
    >
      {pasteReasons(paste)}
      <Excerpt text={paste.text} />
    </Bar>
  );
}

function CopyQuestion({ text, answers }: { text: string; answers: Answers }) {
  const size = amount(new TextEncoder().encode(text).length);
  return (
    <Bar
      icon={<ClipboardCopy aria-hidden className="size-4 shrink-0 text-fg-3" />}
      actions={
        <>
          <Button size="sm" variant="ghost" onClick={() => answers.answer(false, true)}>
            Never here
          </Button>
          <Button size="sm" variant="ghost" onClick={() => answers.answer(false)}>
            No
          </Button>
          <Button size="sm" onClick={() => answers.answer(true, true)}>
            Always here
          </Button>
          <Button size="sm" variant="primary" onClick={() => answers.answer(true)}>
            Copy
          </Button>
        </>
      }
    >
      The program wants to put {size} into your clipboard.
      <Excerpt text={text} />
    </Bar>
  );
}

function PasteBox({ answers }: { answers: Answers }) {
  const [text, setText] = useState('');
  const id = useId();
  return (
    <Bar
      actions={
        <>
          <Button size="sm" variant="ghost" onClick={() => answers.answer(false)}>
            Cancel
          </Button>
          <Button
            size="sm"
            variant="primary"
            disabled={text === ''}
            onClick={() => answers.answerPasteBox(text)}
          >
            Paste
          </Button>
        </>
      }
    >
      <div className="flex flex-col gap-1.5">
        <label htmlFor={id}>This browser does not show its clipboard to the page. Paste here first:</label>
        <Textarea
          id={id}
          autoFocus
          rows={2}
          spellCheck={false}
          autoCapitalize="off"
          value={text}
          onChange={(event) => setText(event.target.value)}
        />
      </div>
    </Bar>
  );
}

function Excerpt({ text }: { text: string }) {
  return <code className="mt-1 block truncate font-mono text-xs text-fg-2">{preview(text)}</code>;
}
