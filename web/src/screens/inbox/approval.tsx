import { Check, X } from 'lucide-react';
import { useRef, useState, type ReactNode, type RefObject } from 'react';
import type { Approval, Decision } from '@/api/agents';
import { useCommands } from '@/app/commands';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import { Kbd } from '@/ui/kbd';
import { VisibleLines } from '../review/visible';
import { useAnswer } from './answers';

/** The server sends no more; a page that is older than it holds to it too. */
const MOST_INPUT = 4_000;
const MOST_REASON = 1_000;

/** What an agent wants to do, as it says it: a sandbox's words, shown as text and nothing else. */
export function ApprovalInput({ approval, className }: { approval: Approval; className?: string }) {
  const input = (approval.input ?? '').slice(0, MOST_INPUT);
  if (approval.kind === 'limit') {
    return (
      <p className={cn('text-sm text-fg-2', className)}>
        It has used up what it may ask of its model. Allow lets it go on; Deny ends its requests.
        {input !== '' && (
          <>
            {' '}
            <VisibleLines text={input} />
          </>
        )}
      </p>
    );
  }
  if (input === '') return null;
  return (
    <pre
      // It may be longer than its frame, so it takes the keyboard's focus.
      // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
      tabIndex={0}
      aria-label={`What ${approval.tool ?? 'the agent'} is asked to do`}
      className={cn(
        'max-h-40 overflow-auto rounded-md border border-line bg-sunken px-3 py-2 font-mono text-xs wrap-anywhere whitespace-pre-wrap text-fg focus-inset',
        className,
      )}
    >
      <VisibleLines text={input} />
    </pre>
  );
}

/** Something that can be allowed or denied; `y` and `n` do it as long as the focus is inside. */
export function Answerable({
  approval,
  as: Tag = 'div',
  className,
  children,
}: {
  approval: Approval;
  as?: 'li' | 'div';
  className?: string | undefined;
  children: ReactNode;
}) {
  const [focused, setFocused] = useState(false);
  const card = useRef<HTMLElement>(null);
  const { busy, answer } = useAnswer(approval);
  const decide = (decision: Decision, message?: string) => {
    const next = nextRow(card);
    void answer(decision, message).then((done) => {
      // The focus goes to what waits next, and never by itself away from elsewhere.
      if (done) requestAnimationFrame(() => focusAfter(next));
    });
  };
  return (
    <Tag
      ref={(element: HTMLElement | null) => {
        card.current = element;
      }}
      data-approval={approval.id}
      onFocus={() => setFocused(true)}
      onBlur={({ currentTarget, relatedTarget }) => {
        if (!currentTarget.contains(relatedTarget)) setFocused(false);
      }}
      className={className}
    >
      {children}
      <Actions approval={approval} busy={busy} onDecide={decide} />
      {focused && <AnswerKeys onDecide={decide} />}
    </Tag>
  );
}

function nextRow(card: RefObject<HTMLElement | null>): HTMLElement | undefined {
  const rows = [...(card.current?.parentElement?.querySelectorAll<HTMLElement>('[data-row]') ?? [])];
  const at = rows.findIndex((row) => card.current?.contains(row));
  return at === -1 ? undefined : (rows[at + 1] ?? rows[at - 1]);
}

function focusAfter(next: HTMLElement | undefined): void {
  const lost = document.activeElement === null || document.activeElement === document.body;
  if (lost && next?.isConnected === true) next.focus({ preventScroll: false });
}

/** A component of its own, so that its keys count over those of the screen that was there before. */
function AnswerKeys({ onDecide }: { onDecide: (decision: Decision) => void }): null {
  useCommands([
    {
      id: 'approval.allow',
      title: 'Allow what an agent asks for',
      group: 'Inbox',
      keys: 'y',
      keysOnly: true,
      run: () => onDecide('allow'),
    },
    {
      id: 'approval.deny',
      title: 'Deny what an agent asks for',
      group: 'Inbox',
      keys: 'n',
      keysOnly: true,
      run: () => onDecide('deny'),
    },
  ]);
  return null;
}

function Actions({
  approval,
  busy,
  onDecide,
}: {
  approval: Approval;
  busy: Decision | undefined;
  onDecide: (decision: Decision, message?: string) => void;
}) {
  const [why, setWhy] = useState<string>();
  const reason = why?.trim() ?? '';
  const name = approval.sessionName;
  return (
    <div className="mt-3 flex flex-col gap-3">
      {why !== undefined && (
        <Field label="Why not" hint="The agent is told, and goes on by it.">
          {(control) => (
            <Input
              {...control}
              autoFocus
              autoComplete="off"
              maxLength={MOST_REASON}
              value={why}
              onChange={(event) => setWhy(event.target.value)}
              onKeyDown={(event) => {
                if (event.key === 'Enter' && !event.nativeEvent.isComposing && reason !== '') {
                  event.preventDefault();
                  onDecide('deny', reason);
                }
                if (event.key === 'Escape') setWhy(undefined);
              }}
            />
          )}
        </Field>
      )}
      {/* On a phone at both ends, so that no thumb takes one for the other. */}
      <div className="flex items-center gap-2 max-md:flex-wrap max-md:justify-between">
        <Button
          icon={X}
          aria-label={`Deny: ${name}`}
          busy={busy === 'deny'}
          disabled={busy !== undefined}
          onClick={() => onDecide('deny', reason)}
          className="max-md:min-w-24 md:order-2"
        >
          Deny <Kbd className="max-md:hidden">N</Kbd>
        </Button>
        {why === undefined && approval.kind === 'permission' && (
          <Button
            variant="ghost"
            onClick={() => setWhy('')}
            className="max-md:order-last max-md:basis-full md:order-3"
          >
            Deny and say why
          </Button>
        )}
        <Button
          variant="primary"
          icon={Check}
          aria-label={`Allow: ${name}`}
          busy={busy === 'allow'}
          disabled={busy !== undefined}
          onClick={() => onDecide('allow')}
          className="max-md:min-w-24 md:order-1"
        >
          Allow <Kbd className="border-transparent bg-transparent text-on-accent max-md:hidden">Y</Kbd>
        </Button>
      </div>
    </div>
  );
}
