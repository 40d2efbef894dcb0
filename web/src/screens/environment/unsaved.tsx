import { TriangleAlert } from 'lucide-react';
import { useBranches, useGitStatus, type Branch } from '@/api/git';
import { useSessions } from '@/api/queries';
import type { Session } from '@/api/types';
import { unsavedWork } from './session-dialogs';
import { counted } from './words';

/** Sandboxes are asked one session after the other; of the rest, the branches tell. */
const ASKED = 12;

/** Branches with work that is only in the sandbox. Pure. */
export function onlyHere(branches: readonly Branch[]): { name: string; what: string }[] {
  return branches.flatMap(({ name, local, remote, ahead }) => {
    if (!local) return [];
    if (ahead > 0) return [{ name, what: counted(ahead, 'unpushed commit') }];
    return remote ? [] : [{ name, what: 'a branch that was never pushed' }];
  });
}

/** What would be lost with an environment; nothing where there is nothing, or nobody can be asked. */
export function UnsavedWork({ environmentId, enabled }: { environmentId: string; enabled: boolean }) {
  const branches = useBranches(environmentId, enabled);
  const sessions = useSessions(environmentId);
  const asked = (enabled ? (sessions.data ?? []) : [])
    .filter(({ gitBranch, status }) => gitBranch !== null && status !== 'dead')
    .slice(0, ASKED);
  const told = new Set(asked.map(({ gitBranch }) => gitBranch));
  const all = onlyHere(branches.data?.branches ?? []);
  const others = all.filter(({ name }) => !told.has(name));
  return (
    <div className="hidden items-start gap-2.5 rounded-md bg-warn-soft px-3 py-2.5 has-[li]:flex">
      <TriangleAlert aria-hidden className="mt-0.5 size-4 shrink-0 text-warn" />
      <div className="min-w-0">
        <p className="font-medium text-fg">Only in this environment:</p>
        <ul className="mt-1 flex max-h-32 flex-col overflow-y-auto">
          {asked.map((session) => (
            <OfSession
              key={session.id}
              session={session}
              known={all.find(({ name }) => name === session.gitBranch)?.what}
            />
          ))}
          {others.map(({ name, what }) => (
            <Line key={name} name={name} what={what} />
          ))}
        </ul>
      </div>
    </div>
  );
}

/** `known`: what the branches tell; a remote branch that is gone is seen only there. */
function OfSession({ session, known }: { session: Session; known: string | undefined }) {
  const { data } = useGitStatus(session.id);
  const what = (data && unsavedWork(data)) ?? known;
  return what === undefined ? null : <Line name={session.gitBranch ?? session.name} what={what} />;
}

function Line({ name, what }: { name: string; what: string }) {
  return (
    <li className="truncate">
      <span className="font-mono text-xs">{name}</span>: {what}
    </li>
  );
}
