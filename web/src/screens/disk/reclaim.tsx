import { useId } from 'react';
import type { DiskItem, DiskTier, Reclaimed, TierNumber } from '@/api/disk';
import { useReclaimDisk } from '@/api/disk';
import { formatBytes } from '@/app/bytes';
import { Collapsible } from '@/ui/collapsible';
import { ConfirmDialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Notice } from '@/ui/notice';
import { Progress } from '@/ui/progress';
import { counted } from '../environment/words';
import { Visible } from '../review/visible';
import { bytesOf, freedSentence, tierWords } from './words';

/** What is at which path, with its size; text from a sandbox. */
export function DiskItems({ items, label }: { items: readonly DiskItem[]; label: string }) {
  return (
    <ul aria-label={label} className="flex flex-col gap-1 text-xs">
      {items.map((item) => (
        <li key={`${item.kind}:${item.path}`} className="flex items-baseline gap-3">
          <span className="min-w-0 flex-1 font-mono wrap-anywhere text-fg-2">
            <Visible text={item.path} />
          </span>
          <span className="shrink-0 text-fg tabular-nums">{formatBytes(item.bytes)}</span>
        </li>
      ))}
    </ul>
  );
}

/** Names all that is removed before it is, and tells how far it is while it goes on. */
export function FreeSpace({
  environmentId,
  tiers,
  last,
  onClose,
  onDone,
}: {
  environmentId: string;
  /** Those that are freed together. */
  tiers: readonly DiskTier[];
  last: TierNumber;
  onClose: () => void;
  onDone: (reclaimed: Reclaimed) => void;
}) {
  const reclaim = useReclaimDisk(environmentId);
  const size = formatBytes(bytesOf(tiers));
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Free ${size}?`}
      action={reclaim.isPending ? 'Freeing…' : `Free ${size}`}
      busy={reclaim.isPending}
      onConfirm={() => reclaim.mutate(last, { onSuccess: onDone })}
    >
      <p>
        This removes, for good, what is named here. Work that is not committed or not pushed is never touched,
        nor is anything of a session that has not ended.
      </p>
      <div className="flex max-h-64 flex-col gap-3 overflow-y-auto rounded-md border border-line bg-sunken px-3 py-2.5">
        {tiers
          .filter(({ items }) => items.length > 0)
          .map(({ tier, items, bytes }) => (
            <Removed key={tier} words={tierWords(tier)} items={items} bytes={bytes} />
          ))}
      </div>
      {reclaim.isPending && (
        <div role="status">
          <Progress value={null} label="Freeing space" />
          <p className="mt-1.5">Looking at each once more, and removing it. This may take minutes.</p>
        </div>
      )}
      {reclaim.isError && <ErrorNote error={reclaim.error} />}
    </ConfirmDialog>
  );
}

function Removed({
  words,
  items,
  bytes,
}: {
  words: ReturnType<typeof tierWords>;
  /** The largest ones. */
  items: readonly DiskItem[];
  bytes: number;
}) {
  const id = useId();
  if (words === undefined) return null;
  const { title, back } = words;
  const smaller = bytes - items.reduce((sum, item) => sum + item.bytes, 0);
  return (
    <section aria-labelledby={id}>
      <h3 id={id} className="text-sm font-medium text-fg">
        {title}
      </h3>
      <p className="mb-1 text-xs">{back}</p>
      <DiskItems items={items} label={`What is removed: ${title}`} />
      {smaller > 0 && <p className="mt-1 text-xs">and smaller ones, {formatBytes(smaller)} together</p>}
    </section>
  );
}

/** What has come of it: what is gone, what is still there and why. */
export function FreedNotice({ reclaimed }: { reclaimed: Reclaimed }) {
  const { freedBytes, removed, kept } = reclaimed;
  return (
    <Notice kind="ok" className="mb-4">
      <p className="font-medium">{freedSentence(freedBytes, kept)}</p>
      {kept.length > 0 && (
        <ul aria-label="What was kept" className="mt-1.5 flex flex-col gap-1">
          {kept.map(({ path, why }) => (
            <li key={path}>
              <span className="font-mono text-xs wrap-anywhere">
                <Visible text={path} />
              </span>
              : <Visible text={why} />
            </li>
          ))}
        </ul>
      )}
      {removed.length > 0 && (
        <Collapsible title={counted(removed.length, 'thing that was removed', 'things that were removed')}>
          <DiskItems items={removed} label="What was removed" />
        </Collapsible>
      )}
    </Notice>
  );
}
