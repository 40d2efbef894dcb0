import { ChartNoAxesColumn, LockOpen } from 'lucide-react';
import { useState } from 'react';
import { useAgentRun, useLimitAgent, type AgentRun } from '@/api/agents';
import { explain } from '@/api/errors';
import type { Session } from '@/api/types';
import { Button } from '@/ui/button';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import { Popover } from '@/ui/popover';
import { limitFrom } from './agent-words';

/** What it has used, and whether its credential is inside the sandbox. */
export function About({ session }: { session: Session }) {
  const run = useAgentRun(session.id);
  const credential = run.data?.credential;
  return (
    <>
      {credential?.entersSandbox === true && (
        <Popover
          label="Who could read the credential"
          align="end"
          trigger={
            <button
              type="button"
              className="flex h-7 shrink-0 items-center gap-1 rounded-md bg-warn-soft px-2 text-xs font-medium text-warn pointer-coarse:h-11"
            >
              <LockOpen aria-hidden className="size-3.5" />
              <span className="max-md:sr-only">Login inside</span>
            </button>
          }
        >
          <p className="font-medium">The credential of {run.data?.title} is in this sandbox</p>
          <p className="mt-1 text-fg-2">Who could read it: {credential.readableBy}</p>
        </Popover>
      )}
      <Popover
        label="What the agent has used"
        align="end"
        // Nothing tells of each request: it is looked at when somebody asks.
        onOpenChange={(open) => {
          if (open) void run.refetch();
        }}
        trigger={
          <button
            type="button"
            aria-label="What the agent has used"
            className="flex size-7 shrink-0 items-center justify-center rounded-md text-fg-2 hover:bg-hover hover:text-fg pointer-coarse:size-11"
          >
            <ChartNoAxesColumn aria-hidden className="size-4" />
          </button>
        }
      >
        {run.data ? (
          <UsageShown run={run.data} />
        ) : run.isError ? (
          <ErrorNote error={run.error} />
        ) : (
          <p className="text-fg-2">Reading…</p>
        )}
      </Popover>
    </>
  );
}

const NUMBER = new Intl.NumberFormat('en');

function UsageShown({ run }: { run: AgentRun }) {
  if (run.credential?.entersSandbox === true) {
    return (
      <p className="text-fg-2">
        With its login inside, the agent asks its provider directly: nothing is counted here.
      </p>
    );
  }
  const { requests, inputTokens, outputTokens } = run.usage;
  return (
    <div className="flex flex-col gap-3">
      <dl className="grid grid-cols-[1fr_auto] gap-x-4 gap-y-1.5">
        <dt className="text-fg-2">Requests</dt>
        <dd className="text-right tabular-nums">{NUMBER.format(requests)}</dd>
        <dt className="text-fg-2">Tokens it sent</dt>
        <dd className="text-right tabular-nums">{NUMBER.format(inputTokens)}</dd>
        <dt className="text-fg-2">Tokens it was given</dt>
        <dd className="text-right tabular-nums">{NUMBER.format(outputTokens)}</dd>
        {run.allowedTokens !== null && (
          <>
            <dt className="text-fg-2">You are asked at</dt>
            <dd className="text-right tabular-nums">{NUMBER.format(run.allowedTokens)}</dd>
          </>
        )}
      </dl>
      <LimitForm key={run.limitTokens} run={run} />
    </div>
  );
}

/** After how many tokens it has to wait until its owner has said to go on. */
function LimitForm({ run }: { run: AgentRun }) {
  const [text, setText] = useState(run.limitTokens === null ? '' : String(run.limitTokens));
  const limit = useLimitAgent(run.sessionId);
  const wanted = limitFrom(text);
  return (
    <form
      className="border-t border-line pt-3"
      onSubmit={(event) => {
        event.preventDefault();
        if (wanted !== undefined) limit.mutate(wanted);
      }}
    >
      <Field
        label="Ask me after so many more tokens"
        hint="Empty: never. It waits until you have answered."
        error={
          limit.isError
            ? explain(limit.error).reason
            : wanted === undefined
              ? 'A whole number, such as 200000.'
              : undefined
        }
      >
        {(control) => (
          <span className="flex gap-2">
            <Input
              {...control}
              inputMode="numeric"
              autoComplete="off"
              className="min-w-0 flex-1"
              value={text}
              onChange={(event) => setText(event.target.value)}
            />
            <Button
              type="submit"
              className="h-9"
              busy={limit.isPending}
              disabled={wanted === run.limitTokens}
            >
              Set
            </Button>
          </span>
        )}
      </Field>
    </form>
  );
}
