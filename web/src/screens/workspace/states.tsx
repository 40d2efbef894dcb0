import { CircleStop, Compass, Play, Trash2 } from 'lucide-react';
import { Link } from 'react-router';
import { useReviveSession } from '@/api/sessions';
import type { Session } from '@/api/types';
import { Button } from '@/ui/button';
import { EmptyState } from '@/ui/empty';
import { ErrorNote } from '@/ui/error-state';

export function NoSuchSession() {
  return (
    <EmptyState
      icon={Compass}
      title="This session is not there"
      action={
        <Button asChild variant="primary">
          <Link to="/envs">All environments</Link>
        </Button>
      }
    >
      It may have been deleted, or the link is wrong.
    </EmptyState>
  );
}

/** A session that had ended before somebody came: it is not brought back without being asked for. */
export function EndedSession({ session, onDelete }: { session: Session; onDelete: () => void }) {
  const revive = useReviveSession();
  return (
    <div className="flex min-h-0 flex-1 flex-col items-center justify-center overflow-y-auto">
      <EmptyState
        icon={CircleStop}
        title="This session has ended"
        action={
          <>
            <Button
              variant="primary"
              icon={Play}
              busy={revive.isPending}
              onClick={() => revive.mutate(session)}
            >
              Bring it back
            </Button>
            <Button variant="danger-ghost" icon={Trash2} onClick={onDelete}>
              Delete…
            </Button>
          </>
        }
      >
        {session.reason && <p>{session.reason}</p>}
        <p>
          {session.gitBranch === null
            ? 'Its files are still there. Bringing it back starts a new terminal.'
            : 'Its worktree is as it was left. Bringing it back starts a new terminal in it.'}
        </p>
      </EmptyState>
      {revive.isError && <ErrorNote error={revive.error} className="mx-4 mb-6 max-w-md" />}
    </div>
  );
}
