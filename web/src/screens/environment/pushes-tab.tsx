import { CloudUpload, GitBranch, Hash, Tag } from 'lucide-react';
import { usePushes, type RecordedPush } from '@/api/environment';
import { EmptyState } from '@/ui/empty';
import { ErrorState } from '@/ui/error-state';
import { List, ListRow } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { pushOutcome, pushShown } from './words';

const KINDS = { branch: GitBranch, tag: Tag, ref: Hash };

export function PushesTab({ environmentId }: { environmentId: string }) {
  const pushes = usePushes(environmentId);
  if (pushes.isPending) return <SkeletonRows rows={5} label="Loading the pushes" />;
  if (pushes.data === undefined) {
    return (
      <ErrorState
        title="The pushes could not be read"
        error={pushes.error}
        busy={pushes.isFetching}
        onRetry={() => void pushes.refetch()}
      />
    );
  }
  if (pushes.data.length === 0) {
    return (
      <EmptyState icon={CloudUpload} title="Nothing was pushed yet">
        Each push from this environment is listed here, whoever made it: you, a script or an agent.
      </EmptyState>
    );
  }
  return (
    <List aria-label="Pushes">
      {pushes.data.map((push, index) => (
        <PushRow key={`${push.createdAt} ${push.ref} ${index}`} push={push} />
      ))}
    </List>
  );
}

function PushRow({ push }: { push: RecordedPush }) {
  const { kind, word } = pushOutcome(push.outcome);
  const { name, kind: of, what } = pushShown(push);
  const Icon = KINDS[of];
  return (
    <ListRow className="items-start py-2.5">
      <Icon aria-label={of} className="mt-1 size-4 shrink-0 text-fg-3 max-sm:hidden" />
      <div className="min-w-0 flex-1">
        <p className="truncate font-mono text-sm">{name}</p>
        <p className="mt-0.5 font-mono text-xs text-fg-3">{what}</p>
        {push.reason && <p className="mt-1 text-sm wrap-anywhere text-fg-2">{push.reason}</p>}
      </div>
      <div className="flex shrink-0 gap-x-3 max-sm:flex-col max-sm:items-end sm:items-center">
        <Ago at={push.createdAt} className="text-right text-sm text-fg-3 sm:w-24" />
        <Status kind={kind} word={word} className="sm:w-28" />
      </div>
    </ListRow>
  );
}
