import { TriangleAlert, X } from 'lucide-react';
import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { ApiError, explain } from '@/api/errors';
import { Button, IconButton } from '@/ui/button';
import {
  apartOf,
  filesOf,
  isForPrograms,
  isOutput,
  moreAbout,
  waysOn,
  withoutColours,
  type Way,
} from './refusals';
import { Repair, repairOf } from './repair';
import { Visible } from './visible';

const SHOWN_FILES = 12;

const LABELS: Readonly<Record<Way, string>> = {
  retry: 'Try again',
  look: 'Look again',
  terminal: 'Open the terminal',
  'skip-hooks': 'Skip the hooks',
  pull: 'Pull',
  rebase: 'Pull and rebase',
  push: 'Push',
  force: 'Overwrite…',
  fetch: 'Look at the remote',
  github: 'GitHub',
  hosts: 'Git hosts',
  policy: 'Push policy',
  account: 'Account',
};

/** Why git, or the server, said no: the reason, what it printed, which files, and the ways on. */
export function Refusal({
  error,
  sessionId,
  environmentId,
  ways,
  onDismiss,
}: {
  error: unknown;
  sessionId: string;
  environmentId: string;
  /** What can be done from here. A way that is not a link and has no handler is not offered. */
  ways: Partial<Record<Way, () => void>>;
  onDismiss?: (() => void) | undefined;
}) {
  const { reason, details, requestId } = explain(error);
  const links: Partial<Record<Way, string>> = {
    terminal: `/s/${sessionId}`,
    github: '/settings/github',
    hosts: '/settings/hosts',
    account: '/settings/account',
    policy: `/e/${environmentId}?tab=settings`,
  };
  const apart = apartOf(error);
  const more = moreAbout(error);
  const offered = waysOn(error).filter((way) => ways[way] !== undefined || links[way] !== undefined);
  const theirs = !(error instanceof ApiError) || error.status >= 500;
  return (
    <div role="alert" className="rounded-md border border-bad/30 bg-bad-soft text-sm">
      <div className="flex items-start gap-2 px-3 py-2.5">
        <TriangleAlert aria-hidden className="mt-0.5 size-4 shrink-0 text-bad" />
        <div className="flex min-w-0 flex-1 flex-col gap-1.5">
          <p className="font-medium break-words">{reason}</p>
          {apart && (
            <p className="text-fg-2">
              {apart.ahead} {apart.ahead === 1 ? 'commit is' : 'commits are'} only here, {apart.behind} only
              there.
            </p>
          )}
          {details !== undefined && !isOutput(error) && !isForPrograms(error) && (
            <p className="break-words text-fg-2">
              <Visible text={details} />
            </p>
          )}
          {more !== undefined && <p className="text-fg-2">{more}</p>}
          <Files files={filesOf(error)} />
          {details !== undefined && isOutput(error) && <Output text={details} label="What was printed" />}
          {requestId !== undefined && theirs && (
            <p className="text-xs text-fg-2">
              Request <code className="font-mono">{requestId}</code>
            </p>
          )}
          {(offered.length > 0 || repairOf(error) !== undefined) && (
            <div className="mt-1 flex flex-wrap gap-1.5">
              <Repair
                error={error}
                sessionId={sessionId}
                environmentId={environmentId}
                onDone={() => (ways.retry ?? ways.look ?? onDismiss)?.()}
              />
              {offered.map((way) => (
                <WayButton key={way} way={way} run={ways[way]} to={links[way]} />
              ))}
            </div>
          )}
        </div>
        {onDismiss && (
          <IconButton size="sm" icon={X} label="Dismiss" onClick={onDismiss} className="-mt-1 -mr-1.5" />
        )}
      </div>
    </div>
  );
}

function WayButton({
  way,
  run,
  to,
}: {
  way: Way;
  run: (() => void) | undefined;
  to: string | undefined;
}): ReactNode {
  if (run) {
    return (
      <Button size="sm" onClick={run}>
        {LABELS[way]}
      </Button>
    );
  }
  return to === undefined ? null : (
    <Button size="sm" asChild>
      <Link to={to}>{LABELS[way]}</Link>
    </Button>
  );
}

function Files({ files }: { files: readonly string[] }) {
  if (files.length === 0) return null;
  return (
    <ul className="flex flex-col font-mono text-xs break-all text-fg-2">
      {files.slice(0, SHOWN_FILES).map((name) => (
        <li key={name}>
          <Visible text={name} />
        </li>
      ))}
      {files.length > SHOWN_FILES && <li className="font-sans">and {files.length - SHOWN_FILES} more</li>}
    </ul>
  );
}

/** What a program printed, as text and nothing else. */
export function Output({ text, label }: { text: string; label: string }) {
  return (
    <pre
      // Scrollable, so it takes the keyboard's focus.
      // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
      tabIndex={0}
      aria-label={label}
      className="max-h-44 overflow-auto rounded-md border border-line bg-surface p-2 font-mono text-xs break-words whitespace-pre-wrap text-fg-2 focus-inset"
    >
      {withoutColours(text)
        .split('\n')
        .map((line, index) => (
          <span key={index}>
            <Visible text={line.replace(/\r$/u, '')} />
            {'\n'}
          </span>
        ))}
    </pre>
  );
}
