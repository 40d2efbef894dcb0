import { useUpdateEnvironment } from '@/api/environment';
import type { Environment } from '@/api/types';
import { ErrorNote } from '@/ui/error-state';
import { Card } from '@/ui/list';
import { toast } from '@/ui/toast';
import { RadioGroup } from '@/ui/toggles';
import { idleOptions, idleValue, minutesOf } from './idle-words';

/** When an environment is stopped by itself. */
export function IdleForm({ environment }: { environment: Environment }) {
  const update = useUpdateEnvironment(environment.id);
  const stored = idleValue(environment.idleStopMinutes);
  const wanted = update.isPending ? idleValue(update.variables.idleStopMinutes) : stored;
  return (
    <Card className="flex flex-col gap-3 p-4">
      <p className="text-sm text-fg-2">
        In use is what somebody has a terminal of open or has typed into, whose agent works or waits, or where
        a program runs. Files and sessions stay, and opening a terminal starts it again.
      </p>
      <RadioGroup<string>
        label="When nobody uses it"
        value={wanted}
        onChange={(value) =>
          update.mutate(
            { idleStopMinutes: minutesOf(value) },
            { onSuccess: () => toast.ok('Changed when it is stopped') },
          )
        }
        options={idleOptions(environment.idleStopMinutes)}
        className="gap-3"
      />
      {update.isError && <ErrorNote error={update.error} />}
    </Card>
  );
}
