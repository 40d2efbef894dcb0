import { CircleCheck, CircleHelp, CircleX, PlugZap } from 'lucide-react';
import { useTestAgent, type Agent, type CheckResult } from '@/api/agents';
import { explain } from '@/api/errors';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { VisibleLines } from '../review/visible';

/** Tries an agent's credential, and says what came of it. */
export function TestCredential({ agent, className }: { agent: Agent; className?: string }) {
  const test = useTestAgent(agent.id);
  const result = test.isError ? { ok: false, message: explain(test.error).reason } : test.data;
  return (
    <div className={cn('flex min-w-0 flex-wrap items-center gap-x-3 gap-y-2', className)}>
      <Button
        icon={PlugZap}
        busy={test.isPending}
        disabled={!agent.credential_type}
        aria-label={`Test ${agent.name}`}
        onClick={() => test.mutate()}
      >
        Test
      </Button>
      <p role="status" className="min-w-0 text-sm wrap-anywhere empty:hidden">
        {result && !test.isPending && <Result {...result} />}
      </p>
    </div>
  );
}

function Result({ ok, message }: CheckResult) {
  // Where only the agent itself can find out, it is neither.
  const [Icon, colour] =
    ok === null
      ? ([CircleHelp, 'text-fg-2'] as const)
      : ok
        ? ([CircleCheck, 'text-ok'] as const)
        : ([CircleX, 'text-bad'] as const);
  return (
    <span className={cn('flex items-start gap-1.5', colour)}>
      <Icon aria-hidden className="mt-0.5 size-4 shrink-0" />
      <span>
        <VisibleLines
          text={message === '' && ok !== null ? (ok ? 'It works.' : 'It does not work.') : message}
        />
      </span>
    </span>
  );
}
