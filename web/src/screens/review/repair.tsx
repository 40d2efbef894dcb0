import { Wrench } from 'lucide-react';
import { useState } from 'react';
import { ApiError } from '@/api/errors';
import { useRepair, type Repaired, type RepairOf } from '@/api/repair';
import { Button } from '@/ui/button';
import { Dialog } from '@/ui/dialog';
import { toast } from '@/ui/toast';

const REPAIRED_BY: Readonly<Record<string, RepairOf>> = {
  WORKTREE_MISSING: 'session',
  WORKTREE_LOCKED: 'session',
  GIT_LOCKED: 'session',
  REPOSITORY_CORRUPT: 'environment',
  REPOSITORY_MISSING: 'environment',
};

/** What a repair of would help against an error; undefined where none does. Pure. */
export function repairOf(error: unknown): RepairOf | undefined {
  return error instanceof ApiError ? REPAIRED_BY[error.code] : undefined;
}

/** Puts right what an error is about, and says what was done; nothing where no repair helps. */
export function Repair({
  error,
  sessionId,
  environmentId,
  onDone,
  className,
}: {
  error: unknown;
  sessionId: string;
  environmentId: string;
  /** The person has read what was done: what could not be shown can be looked at again. */
  onDone: () => void;
  className?: string;
}) {
  const what = repairOf(error);
  const repair = useRepair(what ?? 'session', what === 'environment' ? environmentId : sessionId);
  const [told, setTold] = useState<Repaired>();
  if (what === undefined) return null;
  const close = () => {
    setTold(undefined);
    onDone();
  };
  return (
    <>
      <Button
        size="sm"
        icon={Wrench}
        busy={repair.isPending}
        className={className}
        onClick={() =>
          repair.mutate(undefined, {
            onSuccess: setTold,
            onError: (failure) => toast.failed('It was not repaired', failure),
          })
        }
      >
        {what === 'environment' ? 'Repair the repository' : 'Repair'}
      </Button>
      <Dialog
        open={told !== undefined}
        onOpenChange={(open) => {
          if (!open) close();
        }}
        title={told?.pending ? 'The repair goes on' : 'Repaired'}
        footer={
          <Button variant="primary" onClick={close}>
            Done
          </Button>
        }
      >
        {told && <Told told={told} />}
      </Dialog>
    </>
  );
}

function Told({ told: { done, kept = [], pending = false } }: { told: Repaired }) {
  if (pending) return <p className="text-sm">It goes on by itself. Repair again to wait for it.</p>;
  return (
    <div className="flex flex-col gap-3 text-sm">
      {done.length === 0 && <p>Nothing was damaged.</p>}
      {done.length > 0 && (
        <ul className="list-disc space-y-1 pl-5">
          {done.map((one, index) => (
            <li key={index} className="break-words">
              {one}
            </li>
          ))}
        </ul>
      )}
      {kept.length > 0 && (
        <div>
          <p>Damaged repositories are kept in the environment. Delete them there when you miss nothing:</p>
          <ul className="mt-1 font-mono text-xs break-all text-fg-2">
            {kept.map((one) => (
              <li key={one}>{one}</li>
            ))}
          </ul>
        </div>
      )}
    </div>
  );
}
