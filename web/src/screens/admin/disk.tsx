import { RotateCw } from 'lucide-react';
import { Link } from 'react-router';
import { useAllDisks, type EnvironmentDisk, type ServerDisk } from '@/api/disk';
import { formatBytes } from '@/app/bytes';
import { Section } from '@/app/page';
import { useUser } from '@/auth/session';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { ErrorState } from '@/ui/error-state';
import { Card, List, ListRow } from '@/ui/list';
import { Notice } from '@/ui/notice';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import { FullnessBadge } from '../disk/meter';
import { fullness } from '../disk/words';
import { AdminPage } from './frame';

export function Component() {
  return (
    <AdminPage title="Disk use" lead="What everybody’s environments take up, and what the server has left.">
      <Disks />
    </AdminPage>
  );
}

function Disks() {
  const disks = useAllDisks();
  if (disks.isPending) return <SkeletonRows rows={5} label="Reading the disk use" />;
  if (disks.data === undefined) {
    return (
      <ErrorState
        title="The disk use could not be read"
        error={disks.error}
        busy={disks.isFetching}
        onRetry={() => void disks.refetch()}
      />
    );
  }
  const largest = [...disks.data.environments].sort((one, other) => other.totalBytes - one.totalBytes);
  return (
    <>
      <ServerSpace disk={disks.data} busy={disks.isFetching} onRefresh={() => void disks.refetch()} />
      <Section title="Environments">
        {largest.length === 0 ? (
          <p className="text-sm text-fg-2">There are no environments.</p>
        ) : (
          <List aria-label="Disk use of environments">
            {largest.map((one) => (
              <EnvironmentRow key={one.environmentId} environment={one} />
            ))}
          </List>
        )}
      </Section>
    </>
  );
}

/** Free space against the floor, the part that is kept back; undefined where nobody knows it. Pure. */
export function spaceOf({ freeBytes, totalBytes, floorBytes }: Omit<ServerDisk, 'environments'>) {
  if (freeBytes === null || totalBytes === null) return undefined;
  const whole = Math.max(totalBytes, 1);
  return {
    sentence: `${formatBytes(freeBytes)} free of ${formatBytes(totalBytes)}`,
    usedPercent: Math.round(((totalBytes - freeBytes) / whole) * 100),
    floorPercent: Math.min(100, (floorBytes / whole) * 100),
    short: freeBytes < floorBytes,
  };
}

function ServerSpace({ disk, busy, onRefresh }: { disk: ServerDisk; busy: boolean; onRefresh: () => void }) {
  const space = spaceOf(disk);
  if (space === undefined) {
    return <Notice className="mb-8">How much of the server’s disk is free could not be found out.</Notice>;
  }
  const { usedPercent, floorPercent, short, sentence } = space;
  return (
    <>
      {short && (
        <Notice kind="bad" className="mb-4">
          <p className="font-medium">Less is free than the floor of {formatBytes(disk.floorBytes)}.</p>
          <p className="text-fg-2">
            New environments and sessions are refused until there is more: free space in the largest
            environments below, or give the server a larger disk.
          </p>
        </Notice>
      )}
      <Card className="mb-8 p-4">
        <div className="flex flex-wrap items-start gap-x-4 gap-y-2">
          <p className="min-w-0 flex-1 basis-56 text-xl font-semibold tabular-nums">{sentence}</p>
          <Button icon={RotateCw} busy={busy} onClick={onRefresh}>
            Refresh
          </Button>
        </div>
        <div
          role="meter"
          aria-label="The server’s disk"
          aria-valuemin={0}
          aria-valuemax={100}
          aria-valuenow={usedPercent}
          aria-valuetext={`${usedPercent} % used; ${sentence}`}
          className="relative mt-3 h-3 overflow-hidden rounded-full bg-active"
        >
          <span
            className={cn('absolute inset-y-0 left-0', short ? 'bg-bad-solid' : 'bg-accent')}
            style={{ width: `${usedPercent}%` }}
          />
          <span
            className="absolute inset-y-0 right-0 border-l-2 border-fg bg-fg-3/40"
            style={{ width: `${floorPercent}%` }}
          />
        </div>
        <p className="mt-2 text-sm text-fg-2">
          {usedPercent} % is used. The last {formatBytes(disk.floorBytes)}, at the right end, are the floor:
          nothing new is begun when less is free.
        </p>
      </Card>
    </>
  );
}

function EnvironmentRow({ environment }: { environment: EnvironmentDisk }) {
  const mine = useUser().email === environment.owner;
  return (
    <ListRow className="flex-wrap gap-x-4 gap-y-1 py-3">
      <div className="min-w-0 flex-1 basis-48">
        <p className="truncate text-base font-medium">
          {mine ? (
            <Link to={`/e/${environment.environmentId}?tab=disk`} className="rounded-sm hover:underline">
              {environment.name}
            </Link>
          ) : (
            environment.name
          )}
        </p>
        <p className="truncate text-sm text-fg-3">{environment.owner ?? 'Its owner is gone'}</p>
      </div>
      <div className="min-w-0 text-sm sm:text-right">
        {environment.measuredAt === null ? (
          <Badge>not measured yet</Badge>
        ) : (
          <>
            <p className="flex flex-wrap items-center gap-x-2 gap-y-1 tabular-nums sm:justify-end">
              <FullnessBadge use={environment} />
              <span className="font-medium">{fullness(environment).sentence}</span>
            </p>
            <p className="text-fg-3">
              Measured <Ago at={environment.measuredAt} />
            </p>
          </>
        )}
      </div>
    </ListRow>
  );
}
