import { Unplug, WifiOff, XCircle, CircleStop, Eye, Maximize2 } from 'lucide-react';
import { useEffect, useState, type ReactNode } from 'react';
import { useOnline } from '@/app/connection';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import type { ConnectionState, Held } from './connection';

const TONES = {
  plain: 'border-line bg-raised text-fg',
  warn: 'border-warn/40 bg-warn-soft text-warn',
  bad: 'border-bad/40 bg-bad-soft text-bad',
};

/** One line over the terminal; it takes no room from it. */
export function Bar({
  tone = 'plain',
  icon,
  children,
  actions,
}: {
  tone?: keyof typeof TONES;
  icon?: ReactNode;
  children: ReactNode;
  actions?: ReactNode;
}) {
  return (
    <div
      className={cn(
        'pointer-events-auto flex min-h-10 flex-wrap items-center gap-x-3 gap-y-2 rounded-lg border px-3 py-1.5 text-sm shadow-md animate-fade',
        TONES[tone],
      )}
    >
      {icon}
      <div className="min-w-0 flex-1 basis-40 text-pretty wrap-anywhere">{children}</div>
      {actions !== undefined && <div className="flex flex-wrap items-center gap-2">{actions}</div>}
    </div>
  );
}

/** Whole seconds until a moment of `performance.now`; counts down while it is shown. */
function useSecondsUntil(at: number): number {
  const [now, setNow] = useState(() => performance.now());
  useEffect(() => {
    const timer = window.setInterval(() => setNow(performance.now()), 250);
    return () => window.clearInterval(timer);
  }, []);
  return Math.max(Math.ceil((at - now) / 1000), 0);
}

function Countdown({ at }: { at: number }) {
  const seconds = useSecondsUntil(at);
  // Screen readers are told of the cut once, not of every second.
  return <span aria-hidden>{seconds > 0 ? ` Reconnecting in ${seconds} s.` : ' Reconnecting…'}</span>;
}

/** A device without a network has no other reason. */
function Cause({ reason }: { reason: string }) {
  if (!useOnline()) return 'This device is offline.';
  return reason === '' ? 'The connection is cut.' : sentence(reason);
}

function HeldCount({ held }: { held: Held }) {
  if (held.pieces === 0) return null;
  const what = held.pieces === 1 ? '1 input is' : `${held.pieces} inputs are`;
  return <strong className="font-medium"> {what} held and will be sent.</strong>;
}

export type BannerActions = {
  retry: () => void;
  revive: () => void;
  discardHeld: () => void;
  signIn: (() => void) | undefined;
};

/** What is wrong with the connection and what to do about it; nothing while all is well. */
export function Banner({
  state,
  held,
  actions,
}: {
  state: ConnectionState;
  held: Held;
  actions: BannerActions;
}) {
  switch (state.kind) {
    case 'reconnecting':
      return (
        <Bar
          tone="warn"
          icon={<WifiOff aria-hidden className="size-4 shrink-0" />}
          actions={
            <>
              {held.pieces > 0 && (
                <Button size="sm" variant="ghost" onClick={actions.discardHeld}>
                  Discard
                </Button>
              )}
              <Button size="sm" onClick={actions.retry}>
                Retry now
              </Button>
            </>
          }
        >
          <Cause reason={state.reason} />
          {state.retryAt === null ? (
            <span aria-hidden> Reconnecting…</span>
          ) : (
            <Countdown at={state.retryAt} />
          )}
          <HeldCount held={held} />
        </Bar>
      );
    case 'refused':
      return (
        <Bar
          tone="bad"
          icon={<XCircle aria-hidden className="size-4 shrink-0" />}
          actions={
            <Button size="sm" onClick={actions.revive}>
              {state.final ? 'Try again' : 'Retry'}
            </Button>
          }
        >
          {sentence(state.reason)}
        </Bar>
      );
    case 'signed-out':
      return (
        <Bar
          tone="bad"
          icon={<Unplug aria-hidden className="size-4 shrink-0" />}
          actions={
            <Button size="sm" onClick={actions.signIn ?? actions.revive}>
              {actions.signIn === undefined ? 'Try again' : 'Sign in'}
            </Button>
          }
        >
          Your sign-in has ended. The session goes on without you.
        </Bar>
      );
    case 'ended':
      return (
        <Bar
          icon={<CircleStop aria-hidden className="size-4 shrink-0 text-fg-3" />}
          actions={
            <Button size="sm" variant="primary" onClick={actions.revive}>
              Revive
            </Button>
          }
        >
          The session’s program has ended. Revive starts it again in the same worktree.
        </Bar>
      );
    default:
      return null;
  }
}

/** Another window decides the size. */
export function SizeNote({ size, onClaim }: { size: string; onClaim: () => void }) {
  return (
    <div className="pointer-events-auto flex items-center gap-2 self-end rounded-md border border-line bg-raised py-1 pr-1 pl-2.5 text-xs text-fg-2 shadow-sm">
      Another window set {size}
      <Button size="sm" variant="ghost" icon={Maximize2} onClick={onClaim}>
        Fit here
      </Button>
    </div>
  );
}

export function ReadOnlyNote() {
  return (
    <div className="flex items-center gap-1.5 self-end rounded-md border border-line bg-raised px-2 py-1 text-xs text-fg-2 shadow-sm">
      <Eye aria-hidden className="size-3.5" /> Only watching
    </div>
  );
}

function sentence(text: string): string {
  return /[.!?…]$/.test(text) ? text : `${text}.`;
}

/** What a screen reader hears of a state. */
export function spoken(state: ConnectionState, held: Held): string {
  switch (state.kind) {
    case 'connecting':
      return 'Connecting';
    case 'live':
      return 'Connected';
    case 'reconnecting':
      return `The connection is cut, reconnecting.${held.pieces > 0 ? ' What you type is held.' : ''}`;
    case 'refused':
      return `Refused: ${state.reason}`;
    case 'signed-out':
      return 'Your sign-in has ended';
    case 'ended':
      return 'The session has ended';
    default:
      return '';
  }
}
