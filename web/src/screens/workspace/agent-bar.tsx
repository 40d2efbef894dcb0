import { CircleStop, MessageSquare, Send, Undo2 } from 'lucide-react';
import { useRef, useState, type KeyboardEvent, type RefObject } from 'react';
import {
  MAX_PROMPT,
  useApprovals,
  useInterrupt,
  usePrompts,
  useSendPrompt,
  useTakeBackPrompt,
  type Approval,
  type Prompt,
} from '@/api/agents';
import type { Session } from '@/api/types';
import { useCommands } from '@/app/commands';
import { approvalWord } from '@/app/inbox';
import { useUnseen } from '@/app/seen';
import { sessionStatus } from '@/app/status';
import { isBoolean, useStored } from '@/app/stored';
import { Button, IconButton } from '@/ui/button';
import { ConfirmDialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Textarea } from '@/ui/input';
import { StatusDot } from '@/ui/status';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { Answerable, ApprovalInput } from '../inbox/approval';
import { submitOnEnter } from '../inbox/typing';
import { VisibleLines } from '../review/visible';
import { About } from './agent-about';
import { busy as isBusy, EscapeTwice, promptsShown, receiptWord, waits } from './agent-words';

const isText = (value: unknown): value is string => typeof value === 'string';
/** As tall as that at most; the terminal below keeps its place. */
const BODY = 'flex max-h-[45dvh] flex-col gap-3 overflow-y-auto border-t border-line px-3 py-3';

/** What the agent of a session does, what it asks, and how to speak to it from outside its terminal. */
export function AgentBar({ session }: { session: Session }) {
  const approvals = useApprovals();
  const asked = approvals.data?.filter((one) => one.sessionId === session.id) ?? [];
  const prompts = usePrompts(session.id);
  const [sent, setSent] = useState<string>();
  const [open, setOpen] = useStored('workspace.prompt.open', true, isBoolean);
  const box = useRef<HTMLTextAreaElement>(null);
  const [asking, setAsking] = useState(false);
  const working = isBusy(session.agentState);
  const shown = promptsShown(prompts.data ?? [], sent);
  const write = () => {
    setOpen(true);
    requestAnimationFrame(() => box.current?.focus());
  };
  useCommands([
    {
      id: 'agent.prompt',
      title: 'Write to the agent',
      group: 'Session',
      keys: 'v a',
      icon: MessageSquare,
      run: write,
    },
    {
      id: 'agent.interrupt',
      title: 'Interrupt the agent',
      group: 'Session',
      keys: 'Esc Esc',
      icon: CircleStop,
      enabled: working,
      run: () => setAsking(true),
    },
  ]);
  return (
    <section aria-label="Agent" className="shrink-0 border-b border-line bg-surface">
      <StateLine
        session={session}
        open={open}
        working={working}
        onToggle={() => (open ? setOpen(false) : write())}
        onInterrupt={() => setAsking(true)}
      />
      {asked.length > 0 && (
        <ul aria-label="Waiting for you" className={BODY}>
          {asked.map((one) => (
            <AskedHere key={one.id} approval={one} />
          ))}
        </ul>
      )}
      {asked.length === 0 && session.agentWaitsFor && (
        <p className="border-t border-line px-3 py-2 text-sm wrap-anywhere">
          <span className="font-medium text-warn">It waits for: </span>
          <span className="line-clamp-3 text-fg-2">
            <VisibleLines text={session.agentWaitsFor} />
          </span>
        </p>
      )}
      {shown.length > 0 && <Sent sessionId={session.id} prompts={shown} />}
      {open && (
        <Composer
          key={session.id}
          session={session}
          box={box}
          onSent={setSent}
          onInterrupt={working ? () => setAsking(true) : undefined}
        />
      )}
      {asking && <AskInterrupt session={session} onClose={() => setAsking(false)} />}
    </section>
  );
}

function StateLine({
  session,
  open,
  working,
  onToggle,
  onInterrupt,
}: {
  session: Session;
  open: boolean;
  working: boolean;
  onToggle: () => void;
  onInterrupt: () => void;
}) {
  const { kind, word } = sessionStatus(session, useUnseen()(session));
  const message = session.agentMessage ?? '';
  return (
    <div className="flex min-h-10 min-w-0 items-center gap-2 pr-1.5 pl-3 text-sm">
      {/* Told as it changes, since it is what somebody waits for here. */}
      <p role="status" className="flex shrink-0 items-center gap-1.5 font-medium">
        <StatusDot kind={kind} />
        {word}
      </p>
      {session.agentStateSince && <Ago at={session.agentStateSince} className="shrink-0 text-fg-3" />}
      <p className="min-w-0 flex-1 truncate text-fg-2" title={message}>
        <VisibleLines text={message.replace(/\s+/gu, ' ')} />
      </p>
      <About session={session} />
      <IconButton
        size="sm"
        icon={CircleStop}
        label="Interrupt the agent"
        disabled={!working}
        onClick={onInterrupt}
      />
      <IconButton
        size="sm"
        icon={MessageSquare}
        label={open ? 'Hide the prompt box' : 'Write to the agent'}
        aria-expanded={open}
        onClick={onToggle}
      />
    </div>
  );
}

function AskedHere({ approval }: { approval: Approval }) {
  return (
    <Answerable as="li" approval={approval} className="flex flex-col">
      <p className="flex items-baseline gap-2 text-sm">
        <span className="min-w-0 font-medium wrap-anywhere text-warn">
          <VisibleLines text={approvalWord(approval)} />
        </span>
        <Ago at={approval.createdAt} className="ml-auto shrink-0 text-xs text-fg-3" />
      </p>
      <ApprovalInput approval={approval} className="mt-2" />
    </Answerable>
  );
}

/** The prompts that wait, are blocked, or were just sent, each with what became of it. */
function Sent({ sessionId, prompts }: { sessionId: string; prompts: readonly Prompt[] }) {
  const takeBack = useTakeBackPrompt(sessionId);
  return (
    <ul aria-label="Prompts" className="flex flex-col border-t border-line py-1">
      {prompts.map((one) => {
        const { kind, word } = receiptWord(one);
        return (
          <li key={one.id} className="flex min-w-0 items-center gap-2 px-3 py-1 text-sm">
            <StatusDot kind={kind} />
            <span className="min-w-0 flex-1">
              <span className="block truncate">{one.text}</span>
              <span className="block text-xs wrap-anywhere text-fg-2">{word}</span>
            </span>
            {waits(one) && (
              <Button
                size="sm"
                variant="ghost"
                icon={Undo2}
                aria-label={`Take back: ${one.text.slice(0, 60)}`}
                busy={takeBack.isPending && takeBack.variables === one.id}
                onClick={() =>
                  takeBack.mutate(one.id, {
                    onError: (error) => toast.failed('It was not taken back', error),
                  })
                }
              >
                Take back
              </Button>
            )}
          </li>
        );
      })}
    </ul>
  );
}

function Composer({
  session,
  box,
  onSent,
  onInterrupt,
}: {
  session: Session;
  box: RefObject<HTMLTextAreaElement | null>;
  onSent: (id: string) => void;
  onInterrupt: (() => void) | undefined;
}) {
  const [draft, setDraft] = useStored(`prompt.${session.id}`, '', isText);
  const send = useSendPrompt(session.id);
  const [escape] = useState(() => new EscapeTwice());
  const submit = () => {
    if (draft.trim() === '' || send.isPending) return;
    send.mutate(draft, {
      onSuccess: ({ id }) => {
        setDraft('');
        onSent(id);
      },
    });
  };
  const onEnter = submitOnEnter(submit);
  const onKeyDown = (event: KeyboardEvent<HTMLTextAreaElement>) => {
    onEnter(event);
    if (escape.press(event.key, event.timeStamp)) onInterrupt?.();
  };
  const busy = isBusy(session.agentState);
  return (
    <form
      className="flex flex-col gap-2 border-t border-line p-2"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      {send.isError && <ErrorNote error={send.error} />}
      <div className="flex items-end gap-2">
        <Textarea
          ref={box}
          aria-label="Prompt for the agent"
          rows={1}
          maxLength={MAX_PROMPT}
          enterKeyHint="send"
          placeholder={busy ? 'Is given to the agent when it is done' : 'Write to the agent'}
          className="field-sizing-content max-h-40 min-h-9 flex-1 resize-none py-1.5 pointer-coarse:min-h-11 pointer-coarse:py-2.5"
          value={draft}
          onChange={(event) => setDraft(event.target.value)}
          onKeyDown={onKeyDown}
        />
        <Button
          type="submit"
          variant="primary"
          icon={Send}
          aria-label="Send the prompt"
          busy={send.isPending}
          disabled={draft.trim() === ''}
          className="h-9"
        >
          <span className="max-md:sr-only">Send</span>
        </Button>
      </div>
    </form>
  );
}

function AskInterrupt({ session, onClose }: { session: Session; onClose: () => void }) {
  const interrupt = useInterrupt(session.id);
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Interrupt ${session.name}?`}
      action="Interrupt"
      busy={interrupt.isPending}
      onConfirm={() =>
        interrupt.mutate(undefined, {
          onSuccess: ({ interrupted, reason }) => {
            if (interrupted) toast.ok(`${session.name} is interrupted`);
            else {
              toast.note(`${session.name} was not interrupted`, reason ? { description: reason } : {});
            }
            onClose();
          },
        })
      }
    >
      <p>It stops what it does now. What it has changed so far stays, and it can be told to go on.</p>
      {interrupt.isError && <ErrorNote error={interrupt.error} />}
    </ConfirmDialog>
  );
}
