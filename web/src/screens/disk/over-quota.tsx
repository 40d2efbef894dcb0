import { useDisk } from '@/api/disk';
import { formatBytes } from '@/app/bytes';
import { Button } from '@/ui/button';
import { Notice } from '@/ui/notice';
import { below, bytesOf } from './words';

/** What to do about an environment that takes more than it may; nothing where it does not. */
export function OverQuota({ environmentId, onFree }: { environmentId: string; onFree?: () => void }) {
  const { data } = useDisk(environmentId);
  if (data === undefined || !data.overQuota || data.quotaBytes === null) return null;
  const freeable = bytesOf(data.tiers);
  return (
    <Notice kind="bad" className="mb-4" action={onFree && <Button onClick={onFree}>Free space…</Button>}>
      <p className="font-medium">
        It is over its disk quota: it takes {formatBytes(data.totalBytes)} of {formatBytes(data.quotaBytes)}.
      </p>
      <p className="text-fg-2">
        {freeable > 0
          ? `${formatBytes(freeable)} can be freed without losing work. `
          : 'Nothing can be freed without losing work: push what is done, and delete what is not needed. '}
        No new sessions can be made here until it takes less than {below(data.quotaBytes)}.
      </p>
    </Notice>
  );
}
