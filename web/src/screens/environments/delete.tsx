import type { ReactNode } from 'react';
import { useDeleteEnvironment } from '@/api/queries';
import type { DeletedEnvironment, Discarded, Environment } from '@/api/types';
import { ConfirmDialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { toast } from '@/ui/toast';

/** What was lost with an environment, in a sentence. Pure. */
export function discardedSentence(discarded: readonly Discarded[]): string {
  const parts = discarded.map(({ branch, unpushed, uncommitted }) => {
    const commits = unpushed === 1 ? '1 unpushed commit' : `${unpushed} unpushed commits`;
    const what = [...(unpushed > 0 ? [commits] : []), ...(uncommitted ? ['uncommitted changes'] : [])];
    return `${branch}: ${what.join(' and ')}`;
  });
  return `Gone with it: ${parts.join('; ')}.`;
}

/** Asks for the name, deletes, and says what nobody else had. */
export function DeleteEnvironment({
  environment,
  onClose,
  onDeleted,
  children,
}: {
  environment: Pick<Environment, 'id' | 'name'> & { sessions?: readonly unknown[] };
  onClose: () => void;
  onDeleted?: () => void;
  /** What would be lost, where it is known. */
  children?: ReactNode;
}) {
  const remove = useDeleteEnvironment();
  // A promise and no callback: the event of the deletion may take the page from under this dialog
  // before the answer comes, and what was lost has to be told all the same.
  const confirm = () => void remove.mutateAsync(environment.id).then(told, () => undefined);
  const told = ({ discarded, pending }: DeletedEnvironment) => {
    const description =
      discarded && discarded.length > 0
        ? discardedSentence(discarded)
        : pending === true
          ? 'The rest of it is removed in the background.'
          : undefined;
    toast.ok(`${environment.name} is deleted`, description === undefined ? {} : { description });
    onClose();
    onDeleted?.();
  };
  const sessions = environment.sessions?.length ?? 0;
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Delete ${environment.name}?`}
      action="Delete environment"
      typedName={environment.name}
      busy={remove.isPending}
      onConfirm={confirm}
    >
      <p>
        Its sandbox and everything in it are removed
        {sessions === 0 ? '' : sessions === 1 ? ', with 1 session' : `, with ${sessions} sessions`}. What was
        not pushed is lost. This cannot be undone.
      </p>
      {children}
      {remove.isError && <ErrorNote error={remove.error} />}
    </ConfirmDialog>
  );
}
