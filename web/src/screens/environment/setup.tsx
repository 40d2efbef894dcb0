import { Play, RotateCw, ScrollText } from 'lucide-react';
import { useRunSetup, useSetup, useSetupState, type Setup } from '@/api/sessions';
import type { Session } from '@/api/types';
import { Button } from '@/ui/button';
import { InlineCode } from '@/ui/code';
import { Collapsible } from '@/ui/collapsible';
import { Dialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Skeleton } from '@/ui/skeleton';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { JobLog } from './job-log';
import { counted, jobStatus } from './words';

/** Whether there is anything to tell of how a worktree was prepared. Pure. */
export function worthShowing(setup: Setup): boolean {
  return (
    setup.status !== 'none' ||
    Boolean(setup.command ?? setup.reason ?? setup.error) ||
    setup.copied.length > 0 ||
    setup.warnings.length > 0
  );
}

/** How a session's setup is, as a button that shows its output; nothing where there is no setup. */
export function SetupMark({ session, onShow }: { session: Session; onShow: () => void }) {
  const { data } = useSetupState(session.id);
  if (data === undefined || !worthShowing(data)) return null;
  const { kind, word } = data.error
    ? { kind: 'attention' as const, word: 'Problem' }
    : jobStatus(data.status);
  return (
    <button
      type="button"
      onClick={onShow}
      className="relative flex h-7 shrink-0 items-center gap-1.5 rounded-md px-2 hover:bg-active pointer-coarse:h-11"
    >
      <Status kind={kind} word={`Setup: ${word.toLowerCase()}`} className="text-xs" />
    </button>
  );
}

export function SetupDialog({ session, onClose }: { session: Session; onClose: () => void }) {
  return (
    <Dialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      width="lg"
      title={`Setup of ${session.name}`}
      description="How its worktree was made ready to work in."
    >
      <SetupPanel sessionId={session.id} />
    </Dialog>
  );
}

/** How a worktree was prepared: state, output, what was copied, what is wrong; and to run it again. */
export function SetupPanel({ sessionId }: { sessionId: string }) {
  const setup = useSetup(sessionId);
  const run = useRunSetup(sessionId);
  if (setup.data === undefined) {
    if (setup.isError) {
      return (
        <div className="flex flex-col items-start gap-2">
          <ErrorNote error={setup.error} className="w-full" />
          <Button size="sm" icon={RotateCw} busy={setup.isFetching} onClick={() => void setup.refetch()}>
            Retry
          </Button>
        </div>
      );
    }
    return <Skeleton className="h-16" />;
  }
  return (
    <SetupShown
      setup={setup.data}
      starting={run.isPending}
      error={run.error}
      onRun={() => run.mutate()}
      label="Output of the setup"
    />
  );
}

function SetupShown({
  setup,
  starting,
  error,
  onRun,
  label,
}: {
  setup: Setup;
  starting: boolean;
  error: Error | null;
  onRun: () => void;
  label: string;
}) {
  if (!worthShowing(setup)) return <NoSetup />;
  const { kind, word } = jobStatus(setup.status);
  const ran = setup.status !== 'none';
  return (
    <div className="flex flex-col gap-3">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
        <Status kind={kind} word={word} />
        {setup.exitCode !== undefined && setup.exitCode !== null && setup.exitCode !== 0 && (
          <span className="text-sm text-fg-2">exit code {setup.exitCode}</span>
        )}
        {(setup.finishedAt ?? setup.startedAt) && (
          <Ago at={setup.finishedAt ?? setup.startedAt ?? ''} className="text-sm text-fg-3" />
        )}
        {setup.command && (
          <Button
            size="sm"
            icon={ran ? RotateCw : Play}
            busy={starting}
            disabled={setup.status === 'running'}
            onClick={onRun}
            className="ml-auto"
          >
            {ran ? 'Run again' : 'Run'}
          </Button>
        )}
      </div>
      {setup.reason && <p className="text-sm text-fg-2">{setup.reason}</p>}
      {setup.error && <Problem text={`.craftastic/config.toml cannot be used: ${setup.error}`} />}
      {error !== null && <ErrorNote error={error} />}
      {/* Once it ran, its output says what was run. */}
      {setup.command && !ran && (
        <pre className="overflow-x-auto font-mono text-xs whitespace-pre-wrap text-fg-2">{setup.command}</pre>
      )}
      {ran && <JobLog log={setup.log} truncated={setup.truncated} label={label} />}
      {setup.warnings.map((warning) => (
        <Problem key={warning} text={warning} />
      ))}
      {setup.copied.length > 0 && (
        <Collapsible title={`${counted(setup.copied.length, 'file')} copied into the worktree`}>
          <ul className="max-h-40 overflow-y-auto pl-5 font-mono text-xs text-fg-2">
            {setup.copied.map((file) => (
              <li key={file} className="wrap-anywhere">
                {file}
              </li>
            ))}
          </ul>
        </Collapsible>
      )}
    </div>
  );
}

function Problem({ text }: { text: string }) {
  return <p className="rounded-md bg-warn-soft px-3 py-2 text-sm wrap-anywhere text-fg">{text}</p>;
}

function NoSetup() {
  return (
    <p className="flex items-start gap-2 text-sm text-fg-2">
      <ScrollText aria-hidden className="mt-0.5 size-4 shrink-0 text-fg-3" />
      <span>
        The repository has no setup. Write one in <InlineCode>.craftastic/config.toml</InlineCode> and each
        new worktree is made ready by it.
      </span>
    </p>
  );
}
