import { useGitStatus } from '@/api/git';
import type { Session } from '@/api/types';
import { DeployPanel } from '../deployments/panel';
import { worktreeName } from '../deployments/words';

/** Deploying what a session has made. */
export function Deploy({
  session,
  running,
  pushing,
  onReview,
  onPush,
}: {
  session: Session;
  /** Whether the sandbox can be asked. */
  running: boolean;
  pushing: boolean;
  onReview: () => void;
  onPush: () => void;
}) {
  const status = useGitStatus(session.id, running && session.status !== 'dead');
  return (
    <div className="min-h-0 flex-1 overflow-y-auto p-3">
      <DeployPanel
        narrow
        target={{ kind: 'session', id: session.id, environmentId: session.environmentId }}
        worktree={worktreeName(status.data)}
        pullRequest={session.startedFrom?.pullRequest ?? undefined}
        ways={running ? { review: onReview, push: onPush, pushing } : {}}
      />
    </div>
  );
}
