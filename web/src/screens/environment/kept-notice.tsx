import { Archive, Plus, X } from 'lucide-react';
import { Link } from 'react-router';
import type { Kept } from '@/api/types';
import { Button, IconButton } from '@/ui/button';
import { CodeBlock, InlineCode } from '@/ui/code';
import { JobLog } from './job-log';
import { keptNotices, useKeptNotices, type KeptNotice } from './kept';
import { newSessionAt } from './new-session';
import { keptSentence } from './words';

/** What deleted sessions left behind, until somebody has read it. */
export function KeptNotices({ environmentId }: { environmentId: string }) {
  const notices = useKeptNotices(environmentId);
  return notices.map((notice) => <Notice key={notice.id} notice={notice} />);
}

function Notice({ notice: { id, environmentId, name, kept, teardown } }: { notice: KeptNotice }) {
  return (
    <section
      aria-label={`What was kept of ${name}`}
      className="relative mb-4 flex items-start gap-3 rounded-lg border border-line bg-note-soft p-4 pr-12"
    >
      <Archive aria-hidden className="mt-0.5 size-4 shrink-0 text-note" />
      <div className="flex min-w-0 flex-1 flex-col gap-2 text-sm">
        {kept && <KeptShown name={name} kept={kept} environmentId={environmentId} />}
        {teardown && (
          <>
            <p className="font-medium">
              The teardown of {name} did not succeed
              {teardown.exitCode === undefined || teardown.exitCode === null
                ? '.'
                : ` (exit code ${teardown.exitCode}).`}
            </p>
            {teardown.reason && <p className="text-fg-2">{teardown.reason}</p>}
            <JobLog log={teardown.log} truncated={false} label={`Output of the teardown of ${name}`} />
          </>
        )}
      </div>
      <IconButton
        size="sm"
        icon={X}
        label="I have read it"
        onClick={() => keptNotices.dismiss(id)}
        className="absolute top-2 right-2"
      />
    </section>
  );
}

function KeptShown({ name, kept, environmentId }: { name: string; kept: Kept; environmentId: string }) {
  const { ref, commit, path } = kept;
  return (
    <>
      <p className="font-medium">
        Kept of {name}: {keptSentence(kept)}.
      </p>
      {ref && (
        <p className="text-fg-2">
          It is in <InlineCode>{ref}</InlineCode> of the environment’s repository
          {commit ? (
            <>
              , commit <InlineCode>{commit.slice(0, 12)}</InlineCode>
            </>
          ) : null}
          .
        </p>
      )}
      {commit && (
        <Button asChild className="self-start">
          <Link to={newSessionAt(environmentId, { commit })}>
            <Plus aria-hidden className="size-4" /> Start a session from it
          </Link>
        </Button>
      )}
      {!commit && path && (
        <>
          <p className="text-fg-2">It lies in the environment, in this folder:</p>
          <CodeBlock code={path} label="Where it is" />
        </>
      )}
    </>
  );
}
