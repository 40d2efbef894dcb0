import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { useAgentRun, useAgents } from '@/api/agents';
import { useGitStatus } from '@/api/git';
import type { Environment, Session } from '@/api/types';
import { useUnseen } from '@/app/seen';
import { sessionStatus } from '@/app/status';
import { sessionWhy, whyOf } from '@/app/why';
import { CopyButton } from '@/ui/code';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { startedFrom } from '../environment/words';
import { standing } from '../review/sync';
import { Visible } from '../review/visible';

/** What a session is: where its files are, its branch, since when. */
export function Info({
  session,
  environment,
  git,
}: {
  session: Session;
  environment: Environment | undefined;
  /** Whether git can be asked about its worktree. */
  git: boolean;
}) {
  const { kind, word } = sessionStatus(session, useUnseen()(session));
  const from = startedFrom(session);
  const why = sessionWhy(session);
  const around = environment && whyOf(environment);
  return (
    <div className="min-h-0 flex-1 overflow-y-auto p-3">
      <dl className="flex flex-col gap-3 text-sm">
        <Entry term="State">
          <Status kind={kind} word={word} />
          {why !== undefined && <p className="mt-0.5 text-fg-2">{why}</p>}
        </Entry>
        <Entry term="Environment">
          <Link to={`/e/${session.environmentId}`} className="rounded-sm text-accent-fg hover:underline">
            {environment?.name ?? 'Its environment'}
          </Link>
          {around && <p className="mt-0.5 text-fg-2">{around.reason}</p>}
        </Entry>
        {session.gitBranch !== null && (
          <>
            <Copied term="Branch" text={session.gitBranch} />
            {git && <Upstream sessionId={session.id} />}
            {from !== undefined && <Entry term="Began at">{from}</Entry>}
          </>
        )}
        <Copied term={session.gitBranch === null ? 'Folder' : 'Worktree'} text={session.workingDirectory} />
        <Copied
          term="From another terminal"
          text={`craftastic session attach ${environment?.name ?? ''}/${session.name}`}
        />
        <Entry term="Kind">{session.sessionType === 'agent' ? 'Agent' : 'Terminal'}</Entry>
        {session.sessionType === 'agent' && session.agentState && <AgentEntry session={session} />}
        <Entry term="Last activity">
          {session.lastActivity ? <Ago at={session.lastActivity} /> : 'None yet'}
        </Entry>
        <Entry term="Created">
          <Ago at={session.createdAt} />
        </Entry>
        <Copied term="Id" text={session.id} />
      </dl>
    </div>
  );
}

/** Which agent works here, and who could read its credential. */
function AgentEntry({ session }: { session: Session }) {
  const agents = useAgents();
  const { data: run } = useAgentRun(session.id);
  const agent = agents.data?.find((one) => one.id === session.agentId);
  return (
    <>
      <Entry term="Agent">
        {agent ? (
          <Link to={`/agents/${agent.id}`} className="rounded-sm text-accent-fg hover:underline">
            {agent.name}
          </Link>
        ) : (
          <span className="text-fg-2">{agents.isPending ? 'Reading…' : 'Deleted since'}</span>
        )}
        {run && <span className="text-fg-2"> · {run.title}</span>}
      </Entry>
      {run?.credential && <Entry term="Who could read its credential">{run.credential.readableBy}</Entry>}
    </>
  );
}

function Entry({ term, children }: { term: string; children: ReactNode }) {
  return (
    <div className="min-w-0">
      <dt className="text-xs text-fg-3">{term}</dt>
      <dd className="mt-0.5 min-w-0 wrap-anywhere">{children}</dd>
    </div>
  );
}

function Copied({ term, text }: { term: string; text: string }) {
  return (
    <div className="min-w-0">
      <dt className="text-xs text-fg-3">{term}</dt>
      <dd className="mt-0.5 flex min-w-0 items-start gap-1">
        <span className="min-w-0 flex-1 pt-1 font-mono text-xs wrap-anywhere">
          <Visible text={text} />
        </span>
        <CopyButton text={text} label={`Copy: ${term}`} />
      </dd>
    </div>
  );
}

function Upstream({ sessionId }: { sessionId: string }) {
  const { data } = useGitStatus(sessionId);
  if (data === undefined) return null;
  return (
    <Entry term="Upstream">
      {data.upstream ? (
        <>
          <span className="font-mono text-xs">
            <Visible text={data.upstream} />
          </span>
          <span className="text-fg-2"> · {standing(data)}</span>
        </>
      ) : (
        standing(data)
      )}
    </Entry>
  );
}
