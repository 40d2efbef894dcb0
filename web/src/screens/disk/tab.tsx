import { GitBranch, HardDrive, RotateCw } from 'lucide-react';
import { useState } from 'react';
import { Link } from 'react-router';
import {
  useDisk,
  useMeasureDisk,
  type DiskTier,
  type DiskUse,
  type Reclaimed,
  type SessionDisk,
  type TierNumber,
} from '@/api/disk';
import type { Environment } from '@/api/types';
import { formatBytes } from '@/app/bytes';
import { Section } from '@/app/page';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { Collapsible } from '@/ui/collapsible';
import { EmptyState } from '@/ui/empty';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Card, List, ListRow } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import { counted } from '../environment/words';
import { Visible } from '../review/visible';
import { DiskMeter } from './meter';
import { OverQuota } from './over-quota';
import { DiskItems, FreedNotice, FreeSpace } from './reclaim';
import { bytesOf, nameOf, savedWord, tierWords, upTo } from './words';

/** What an environment takes up on the disk, and what of it can be freed. */
export function DiskTab({ environment }: { environment: Environment }) {
  const disk = useDisk(environment.id);
  const measure = useMeasureDisk(environment.id);
  const running = environment.status === 'running';
  if (disk.isPending) return <SkeletonRows rows={4} label="Reading the disk use" />;
  if (disk.data === undefined) {
    return (
      <ErrorState
        title="The disk use could not be read"
        error={disk.error}
        busy={disk.isFetching}
        onRetry={() => void disk.refetch()}
      />
    );
  }
  const use = disk.data;
  const measuring = measure.isPending || use.measuring;
  const again = (
    <Button icon={RotateCw} busy={measuring} disabled={!running} onClick={() => measure.mutate()}>
      {measuring ? 'Measuring…' : use.state === 'never' ? 'Measure now' : 'Measure again'}
    </Button>
  );
  if (use.state === 'never') {
    return (
      <EmptyState icon={HardDrive} title="Not measured yet" action={again}>
        <p>{use.reason ?? 'All files of the sandbox are looked at once. Nothing in it is changed.'}</p>
        {!running && <p>Start the environment to have it measured.</p>}
        {measure.isError && <ErrorNote error={measure.error} className="mt-3 text-left" />}
      </EmptyState>
    );
  }
  return (
    <div className="max-w-3xl">
      <OverQuota environmentId={environment.id} />
      <Card className="mb-8 p-4">
        <DiskMeter use={use} />
        <div className="mt-4 flex flex-wrap items-center gap-x-4 gap-y-2 border-t border-line pt-3">
          <p className="min-w-0 flex-1 basis-56 text-sm text-fg-2">
            {use.measuredAt !== null && (
              <>
                Measured <Ago at={use.measuredAt} />.{' '}
              </>
            )}
            {!use.complete && 'There are more files than are counted: it is more than this. '}
            {use.reason}
          </p>
          {again}
        </div>
        {measure.isError && <ErrorNote error={measure.error} className="mt-3" />}
      </Card>
      <Freeable environment={environment} use={use} running={running} />
      <Section title="By session">
        <BySession sessions={use.sessions} />
      </Section>
    </div>
  );
}

function Freeable({
  environment,
  use,
  running,
}: {
  environment: Environment;
  use: DiskUse;
  running: boolean;
}) {
  const [asking, setAsking] = useState<TierNumber>();
  const [reclaimed, setReclaimed] = useState<Reclaimed>();
  const tiers = upTo(use.tiers, 3);
  return (
    <Section title="What can be freed">
      <p className="mb-3 text-sm text-fg-2">
        Each step takes those before it along. Work that is not committed or not pushed is never touched.
        {!running && ' Start the environment first: its files are in the sandbox.'}
      </p>
      {reclaimed && <FreedNotice reclaimed={reclaimed} />}
      <List aria-label="What can be freed">
        {tiers.map((one) => (
          <TierRow
            key={one.tier}
            tier={one}
            together={upTo(tiers, one.tier)}
            running={running}
            onFree={setAsking}
          />
        ))}
      </List>
      {asking !== undefined && (
        <FreeSpace
          environmentId={environment.id}
          tiers={upTo(tiers, asking)}
          last={asking}
          onClose={() => setAsking(undefined)}
          onDone={(answer) => {
            setAsking(undefined);
            setReclaimed(answer);
          }}
        />
      )}
    </Section>
  );
}

function TierRow({
  tier: { tier, bytes, items },
  together,
  running,
  onFree,
}: {
  tier: DiskTier;
  together: readonly DiskTier[];
  running: boolean;
  onFree: (tier: TierNumber) => void;
}) {
  const words = tierWords(tier);
  if (words === undefined) return null;
  const { title, what, back } = words;
  const size = formatBytes(bytesOf(together));
  return (
    <ListRow className="flex-wrap items-start gap-x-4 py-3.5 hover:bg-transparent">
      <div className="min-w-0 flex-1 basis-64">
        <p className="flex flex-wrap items-baseline gap-x-2">
          <span className="text-base font-medium">
            {tier}. {title}
          </span>
          <span className="text-sm text-fg-2 tabular-nums">
            {items.length === 0 ? 'nothing' : formatBytes(bytes)}
          </span>
        </p>
        <p className="mt-0.5 text-sm text-fg-2">
          {what} {back}
        </p>
        {items.length > 0 && (
          <Collapsible title={`Show ${counted(items.length, 'folder')}`} className="mt-1">
            <div className="max-h-56 overflow-y-auto pr-2 pl-5">
              <DiskItems items={items} label={title} />
            </div>
          </Collapsible>
        )}
      </div>
      {items.length > 0 && (
        <Button
          disabled={!running}
          aria-label={`Free ${size}: up to ${title}…`}
          onClick={() => onFree(words.tier)}
        >
          Free {size}…
        </Button>
      )}
    </ListRow>
  );
}

function BySession({ sessions }: { sessions: readonly SessionDisk[] }) {
  if (sessions.length === 0) {
    return <p className="text-sm text-fg-2">No session has files of its own.</p>;
  }
  const largest = [...sessions].sort((one, other) => other.bytes - one.bytes);
  return (
    <List aria-label="Disk use by session">
      {largest.map((one) => (
        <SessionUse key={one.path} session={one} />
      ))}
    </List>
  );
}

function SessionUse({ session }: { session: SessionDisk }) {
  const saved = savedWord(session);
  return (
    <ListRow className="py-3">
      <div className="min-w-0 flex-1">
        <p className="flex min-w-0 flex-wrap items-center gap-x-2 gap-y-1">
          <span className="min-w-0 truncate text-base font-medium">
            {session.sessionId === null ? (
              <Visible text={nameOf(session)} />
            ) : (
              <Link
                to={`/s/${session.sessionId}`}
                className="after:absolute after:inset-0 focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:-outline-offset-2 focus-visible:after:outline-ring"
              >
                <Visible text={nameOf(session)} />
              </Link>
            )}
          </span>
          {session.state === 'ended' && <Badge>ended</Badge>}
          {session.state === 'none' && <Badge tone="note">belongs to no session</Badge>}
          {saved !== undefined && (
            <Badge tone={session.saved === true ? 'ok' : session.saved === false ? 'warn' : 'neutral'}>
              {saved}
            </Badge>
          )}
        </p>
        <p className="mt-0.5 flex min-w-0 flex-wrap items-center gap-x-3 text-sm text-fg-3">
          {session.branch !== null && (
            <span className="flex min-w-0 items-center gap-1">
              <GitBranch aria-hidden className="size-3.5 shrink-0" />
              <span className="truncate font-mono text-xs">
                <Visible text={session.branch} />
              </span>
            </span>
          )}
          {session.regenerableBytes > 0 && (
            <span>{formatBytes(session.regenerableBytes)} of it can be built again</span>
          )}
        </p>
      </div>
      <span className="shrink-0 text-sm font-medium tabular-nums">{formatBytes(session.bytes)}</span>
    </ListRow>
  );
}
