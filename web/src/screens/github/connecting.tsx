import { CircleAlert, ExternalLink, LoaderCircle } from 'lucide-react';
import { useEffect, useState } from 'react';
import { Button } from '@/ui/button';
import { CopyButton } from '@/ui/code';
import { Card } from '@/ui/list';
import { safeAddress, type Flow, type Waiting } from './flow';

/** "14:59" until a time; "0:00" after it. Pure. */
export function leftUntil(expiresAt: number, now: number): string {
  const seconds = Math.max(0, Math.ceil((expiresAt - now) / 1_000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

/** A connection that is being made: the code, where it is entered, and how it stands. */
export function Connecting({ flow, onRetry, onEnd }: { flow: Flow; onRetry: () => void; onEnd: () => void }) {
  return (
    <Card className="mb-8 p-5">
      {flow.state === 'failed' ? (
        <div role="alert" className="flex flex-col items-start gap-3">
          <p className="flex items-start gap-2 text-base font-medium">
            <CircleAlert aria-hidden className="mt-0.5 size-4 shrink-0 text-bad" />
            {flow.reason}
          </p>
          {flow.details !== undefined && <p className="text-sm text-fg-2">{flow.details}</p>}
          <div className="flex gap-2">
            <Button variant="primary" onClick={onRetry}>
              Get a new code
            </Button>
            <Button onClick={onEnd}>Not now</Button>
          </div>
        </div>
      ) : flow.state === 'waiting' ? (
        <CodeToEnter flow={flow} onEnd={onEnd} />
      ) : (
        <p role="status" className="flex items-center gap-2 text-sm text-fg-2">
          <LoaderCircle aria-hidden className="size-4 animate-spin text-accent-fg" />
          {flow.state === 'done' ? 'Connected. Reading your account…' : 'Asking GitHub for a code…'}
        </p>
      )}
    </Card>
  );
}

function CodeToEnter({ flow, onEnd }: { flow: Waiting; onEnd: () => void }) {
  const to = safeAddress(flow.address);
  return (
    <ol className="flex flex-col gap-5">
      <li>
        <p className="mb-2 text-sm font-medium">1. Copy this code</p>
        <div className="flex items-center gap-2">
          <code
            aria-label={`The code: ${Array.from(flow.code).join(' ')}`}
            role="img"
            className="rounded-lg border border-line bg-sunken px-4 py-2 font-mono text-2xl font-semibold tracking-[0.15em] select-all"
          >
            {flow.code}
          </code>
          <CopyButton text={flow.code} label="Copy the code" />
        </div>
        <Countdown expiresAt={flow.expiresAt} />
      </li>
      <li>
        <p className="mb-2 text-sm font-medium">2. Enter it at GitHub</p>
        {to === undefined ? (
          <p className="font-mono text-sm">{flow.address}</p>
        ) : (
          <Button asChild variant="primary">
            <a href={to} target="_blank" rel="noopener noreferrer">
              Open {to.replace(/^https?:\/\//u, '')} <ExternalLink aria-hidden className="size-3.5" />
            </a>
          </Button>
        )}
        <p className="mt-2 max-w-lg text-xs text-fg-3">
          Enter the code only there, and only because you asked for it here.
        </p>
      </li>
      <li className="flex flex-wrap items-center justify-between gap-3 border-t border-line pt-4">
        <p role="status" className="flex items-center gap-2 text-sm text-fg-2">
          <LoaderCircle aria-hidden className="size-4 animate-spin text-accent-fg" />
          {flow.message}
        </p>
        <Button variant="ghost" onClick={onEnd}>
          Cancel
        </Button>
      </li>
    </ol>
  );
}

function Countdown({ expiresAt }: { expiresAt: number }) {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), 1_000);
    return () => window.clearInterval(timer);
  }, []);
  return (
    <p className="mt-1.5 text-xs text-fg-3">
      Good for <span className="tabular-nums">{leftUntil(expiresAt, now)}</span>
    </p>
  );
}
