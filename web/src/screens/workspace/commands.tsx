import { ChevronRight, Play, RotateCw, Square } from 'lucide-react';
import { useState } from 'react';
import {
  useControlCommand,
  useSessionCommand,
  useSessionCommands,
  type CommandLine,
  type Commands as CommandsAnswer,
} from '@/api/sessions';
import { Button, IconButton } from '@/ui/button';
import { InlineCode } from '@/ui/code';
import { cn } from '@/ui/cn';
import { ErrorNote } from '@/ui/error-state';
import { Skeleton, SkeletonRows } from '@/ui/skeleton';
import { StatusDot } from '@/ui/status';
import { Ago } from '@/ui/time';
import { JobLog } from '../environment/job-log';
import { SetupPanel } from '../environment/setup';
import { jobStatus } from '../environment/words';

/** The setup of a session's worktree, and the commands that its repository offers. */
export function Commands({ sessionId }: { sessionId: string }) {
  const commands = useSessionCommands(sessionId);
  return (
    <div className="flex min-h-0 flex-1 flex-col gap-5 overflow-y-auto p-3">
      <section aria-label="Setup">
        <h2 className="mb-2 text-xs font-medium text-fg-3">Setup</h2>
        <SetupPanel sessionId={sessionId} />
      </section>
      <section aria-label="Commands">
        <h2 className="mb-2 text-xs font-medium text-fg-3">Commands</h2>
        {commands.isPending && <SkeletonRows rows={2} label="Reading the commands" />}
        {commands.isError && commands.data === undefined && (
          <div className="flex flex-col items-start gap-2">
            <ErrorNote error={commands.error} className="w-full" />
            <Button
              size="sm"
              icon={RotateCw}
              busy={commands.isFetching}
              onClick={() => void commands.refetch()}
            >
              Retry
            </Button>
          </div>
        )}
        {commands.data && <CommandList sessionId={sessionId} answer={commands.data} />}
      </section>
    </div>
  );
}

function CommandList({ sessionId, answer }: { sessionId: string; answer: CommandsAnswer }) {
  const [open, setOpen] = useState<string>();
  // What is wrong with the configuration stands above, with the setup.
  const { commands, error } = answer;
  return (
    <div className="flex flex-col gap-2">
      {commands.length === 0 && !error && (
        <p className="text-sm text-fg-2">
          The repository has none. Name some under <InlineCode>[commands]</InlineCode> in{' '}
          <InlineCode>.craftastic/config.toml</InlineCode>, such as a development server, to start and stop
          them here.
        </p>
      )}
      {commands.length > 0 && (
        <ul className="divide-y divide-line rounded-md border border-line">
          {commands.map((command) => (
            <CommandRow
              key={command.name}
              sessionId={sessionId}
              command={command}
              open={open === command.name}
              onToggle={() => setOpen(open === command.name ? undefined : command.name)}
              onStarted={() => setOpen(command.name)}
            />
          ))}
        </ul>
      )}
    </div>
  );
}

function CommandRow({
  sessionId,
  command,
  open,
  onToggle,
  onStarted,
}: {
  sessionId: string;
  command: CommandLine;
  open: boolean;
  onToggle: () => void;
  onStarted: () => void;
}) {
  const control = useControlCommand(sessionId);
  const { name } = command;
  const shown = useSessionCommand(sessionId, name, open && command.status !== 'none');
  // What is in view is asked for more often than the list.
  const { status, exitCode, reason, ...times } = (open ? shown.data : undefined) ?? command;
  const { kind, word } = jobStatus(status);
  const running = status === 'running';
  const at = times.finishedAt ?? times.startedAt;
  return (
    <li>
      <div className="flex min-w-0 items-center gap-1 py-1 pr-1.5 pl-1">
        <button
          type="button"
          aria-expanded={open}
          onClick={onToggle}
          className="flex min-h-8 min-w-0 flex-1 items-center gap-2 rounded-md px-1.5 text-left hover:bg-hover focus-inset pointer-coarse:min-h-11"
        >
          <ChevronRight
            aria-hidden
            className={cn('size-3.5 shrink-0 text-fg-3 transition-transform', open && 'rotate-90')}
          />
          <StatusDot kind={kind} label={word} />
          <span className="shrink-0 text-sm font-medium">{name}</span>
          <span className="min-w-0 flex-1 truncate font-mono text-xs text-fg-3">{command.command}</span>
        </button>
        <IconButton
          size="sm"
          icon={running ? Square : Play}
          label={running ? `Stop ${name}` : `Start ${name}`}
          busy={control.isPending}
          onClick={() =>
            control.mutate(
              { name, action: running ? 'stop' : 'start' },
              running ? {} : { onSuccess: onStarted },
            )
          }
        />
      </div>
      {control.isError && <ErrorNote error={control.error} className="m-2 mt-0" />}
      {open && (
        <div className="flex flex-col gap-2 px-2 pb-2">
          <p className="flex flex-wrap items-center gap-x-2 text-xs text-fg-2">
            {word}
            {exitCode !== undefined && exitCode !== null && exitCode !== 0 && (
              <span>exit code {exitCode}</span>
            )}
            {at && <Ago at={at} className="text-fg-3" />}
          </p>
          {reason && <p className="text-sm text-fg-2">{reason}</p>}
          {status !== 'none' &&
            (shown.data ? (
              <JobLog log={shown.data.log} truncated={shown.data.truncated} label={`Output of ${name}`} />
            ) : shown.isError ? (
              <ErrorNote error={shown.error} />
            ) : (
              <Skeleton className="h-12" />
            ))}
        </div>
      )}
    </li>
  );
}
