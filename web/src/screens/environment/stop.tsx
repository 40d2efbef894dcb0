import { useStopEnvironment } from '@/api/environment';
import { ApiError } from '@/api/errors';
import type { Environment } from '@/api/types';
import { ConfirmDialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { toast } from '@/ui/toast';

/** Says what a stop ends and what stays; where agents are at work it asks once more. */
export function StopEnvironment({ environment, onClose }: { environment: Environment; onClose: () => void }) {
  const stop = useStopEnvironment();
  const busy = stop.error instanceof ApiError && stop.error.code === 'AGENTS_AT_WORK' ? stop.error : null;
  const confirm = () =>
    stop.mutate(
      { id: environment.id, force: busy !== null },
      {
        onSuccess: (stopped) => {
          toast.ok(
            stopped.status === 'stopped'
              ? `${environment.name} is stopped`
              : `${environment.name} is being stopped`,
          );
          onClose();
        },
      },
    );
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Stop ${environment.name}?`}
      action={busy ? 'Stop all the same' : 'Stop'}
      busy={stop.isPending}
      onConfirm={confirm}
    >
      <p>
        Programs in its terminals end. Files, also those that no commit has, stay as they are, and sessions
        come back in their working trees when you open them.
      </p>
      {busy ? <p>{busy.details ?? busy.message}</p> : stop.isError && <ErrorNote error={stop.error} />}
    </ConfirmDialog>
  );
}
