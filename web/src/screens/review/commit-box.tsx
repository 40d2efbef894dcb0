import { useQueryClient } from '@tanstack/react-query';
import { useId, useRef, useState } from 'react';
import { lookAgain, useCommit, useGitLog, type GitStatus, type NewCommit } from '@/api/git';
import { useCommands } from '@/app/commands';
import { onMac } from '@/app/keys/chord';
import { useStored } from '@/app/stored';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { CopyButton } from '@/ui/code';
import { Textarea } from '@/ui/input';
import { Checkbox } from '@/ui/toggles';
import { commitNames, filesWord, messageHint, subjectOf, SUBJECT_MOST } from './commit';
import type { ReviewFile } from './diff/files';
import { Counts } from './marks';
import { Refusal } from './refusal';
import { Result } from './sync';
import { Visible } from './visible';

const isText = (value: unknown): value is string => typeof value === 'string';

/** What the commit is made of. */
export type CommitOf =
  /** Exactly these files, as they are in the worktree. */
  | { kind: 'files'; chosen: readonly ReviewFile[]; all: number }
  /** Everything: the list is too long to choose from. */
  | { kind: 'all' }
  /** What is staged, as it is staged. */
  | { kind: 'staged'; count: number };

/** The message and the button; what was written stays in this browser until it is committed. */
export function CommitBox({
  sessionId,
  environmentId,
  status,
  of,
  small = false,
}: {
  sessionId: string;
  environmentId: string;
  status: GitStatus;
  of: CommitOf;
  /** One line until somebody writes: where there is little room. */
  small?: boolean;
}) {
  const id = useId();
  const queries = useQueryClient();
  const box = useRef<HTMLTextAreaElement>(null);
  const [message, setMessage] = useStored(`commit.${sessionId}`, '', isText);
  const [amend, setAmend] = useState(false);
  const [writing, setWriting] = useState(false);
  const [shownResult, setShownResult] = useState(false);
  const commit = useCommit(sessionId);
  const log = useGitLog(sessionId, amend);
  const last = log.data?.pages[0]?.commits[0];

  const count = of.kind === 'files' ? of.chosen.length : of.kind === 'staged' ? of.count : undefined;
  const subject = subjectOf(message);
  const ready = message.trim() !== '' && !commit.isPending && (count !== 0 || amend);
  const hint = messageHint(message);
  const whole = !small || writing || message !== '' || amend;

  // Nothing is there to be committed: the box waits until there is.
  const idle = count === 0 && (of.kind !== 'files' || of.all === 0) && !amend && message === '';

  const send = (more: Partial<NewCommit> = {}) => {
    if (message.trim() === '') {
      box.current?.focus();
      return;
    }
    const what: Partial<NewCommit> =
      of.kind === 'files'
        ? of.chosen.length === 0
          ? { staged: true }
          : commitNames(of.chosen, status)
        : of.kind === 'staged'
          ? { staged: true }
          : {};
    setShownResult(true);
    commit.mutate(
      {
        message: message.trim(),
        amend,
        ...(status.head === null ? {} : { expectedSha: status.head }),
        ...what,
        ...more,
      },
      {
        onSuccess: () => {
          setMessage('');
          setAmend(false);
        },
      },
    );
  };
  const takeAmend = (checked: boolean) => {
    setAmend(checked);
    if (!checked || message.trim() !== '') return;
    void log.refetch().then(({ data }) => {
      const before = data?.pages[0]?.commits[0];
      if (before) setMessage([before.message, before.body].filter((part) => part !== '').join('\n\n'));
    });
  };
  useCommands([
    {
      id: 'review.commit',
      title: 'Write a commit message',
      group: 'Review',
      keys: 'x c',
      keywords: 'git commit',
      run: () => box.current?.focus(),
    },
  ]);

  return (
    <div className="flex flex-col gap-2">
      {shownResult && commit.isSuccess && (
        <Result
          onDismiss={() => setShownResult(false)}
          title={
            <span className="flex min-w-0 items-center gap-1">
              <span className="min-w-0 truncate">
                <Visible text={commit.data.summary} />
              </span>
              <code className="shrink-0 font-mono text-xs text-fg-2">{commit.data.commit.slice(0, 8)}</code>
              <CopyButton text={commit.data.commit} label="Copy the commit's hash" className="-my-1" />
            </span>
          }
        >
          <p className="flex items-center gap-2 text-xs text-fg-2">
            Committed {filesWord(commit.data.filesChanged)}
            <Counts added={commit.data.insertions} removed={commit.data.deletions} />
          </p>
        </Result>
      )}
      {shownResult && commit.isError && (
        <Refusal
          error={commit.error}
          sessionId={sessionId}
          environmentId={environmentId}
          onDismiss={() => setShownResult(false)}
          ways={{
            retry: () => send(),
            'skip-hooks': () => send({ noVerify: true }),
            look: () => {
              setShownResult(false);
              void lookAgain(queries, sessionId);
            },
          }}
        />
      )}
      {idle ? (
        <Button variant="ghost" disabled={status.head === null} onClick={() => takeAmend(true)}>
          Change the last commit…
        </Button>
      ) : (
        <>
          <div>
            <label htmlFor={id} className="sr-only">
              Commit message
            </label>
            <Textarea
              ref={box}
              id={id}
              rows={whole ? 3 : 1}
              onFocus={() => setWriting(true)}
              aria-describedby={`${id}-note`}
              placeholder="What changed, and why"
              spellCheck
              className={cn(
                'text-sm',
                whole ? 'min-h-18 resize-y' : 'min-h-9 resize-none pointer-coarse:min-h-11',
              )}
              value={message}
              onChange={(event) => setMessage(event.target.value)}
              onKeyDown={(event) => {
                if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && ready) {
                  event.preventDefault();
                  send();
                }
              }}
            />
            <p
              id={`${id}-note`}
              className={cn(
                'mt-1 flex items-start justify-between gap-2 text-xs text-fg-3',
                !whole && 'hidden',
              )}
            >
              <span className={cn(hint === undefined ? 'pointer-coarse:invisible' : 'text-warn')}>
                {hint ?? (onMac ? '⌘ Enter commits.' : 'Ctrl Enter commits.')}
              </span>
              <span
                className={cn(
                  'shrink-0 tabular-nums',
                  Array.from(subject).length > SUBJECT_MOST && 'font-medium text-warn',
                )}
              >
                <span className="sr-only">The first line has </span>
                {Array.from(subject).length}/{SUBJECT_MOST}
              </span>
            </p>
          </div>
          {whole && (
            <Checkbox
              label="Change the last commit instead"
              hint={
                amend && last?.pushed === true
                  ? 'It is pushed already: the branch will have to be overwritten there.'
                  : undefined
              }
              checked={amend}
              disabled={status.head === null}
              onCheckedChange={(checked) => takeAmend(checked === true)}
            />
          )}
          <Button
            variant="primary"
            disabled={!ready}
            busy={commit.isPending}
            onClick={() => send()}
            className="w-full"
          >
            {buttonText(of, amend)}
          </Button>
        </>
      )}
    </div>
  );
}

function buttonText(of: CommitOf, amend: boolean): string {
  const verb = amend ? 'Amend' : 'Commit';
  if (of.kind === 'all') return `${verb} everything`;
  if (of.kind === 'staged') return `${verb} what is staged`;
  if (of.chosen.length === 0) return amend ? 'Amend the message' : 'Choose files to commit';
  if (of.chosen.length === of.all)
    return amend ? `Amend with ${filesWord(of.all)}` : `Commit ${filesWord(of.all)}`;
  return `${verb} ${of.chosen.length} of ${filesWord(of.all)}`;
}
