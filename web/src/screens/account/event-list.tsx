import type { ReactNode } from 'react';
import type { AuditEvent } from '@/api/account';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { Collapsible } from '@/ui/collapsible';
import { ErrorNote } from '@/ui/error-state';
import { List, ListRow } from '@/ui/list';
import { Ago } from '@/ui/time';
import { about, deed, facts } from './deeds';

/** Events of the audit log, newest first, each with all that it says behind a fold. */
export function EventList<T extends AuditEvent>({
  events,
  label,
  who,
}: {
  events: readonly T[];
  label: string;
  /** Who did it, where the list is of several people. */
  who?: (event: T) => ReactNode;
}) {
  return (
    <List aria-label={label}>
      {events.map((event) => {
        const what = about(event);
        return (
          <ListRow key={event.seq} className="flex-col items-stretch gap-0.5 py-2">
            <div className="flex flex-wrap items-baseline gap-x-2 gap-y-0.5">
              <span className="text-base font-medium">{deed(event.action)}</span>
              {event.outcome !== 'ok' && (
                <Badge tone={event.outcome === 'started' ? 'neutral' : 'warn'} className="self-center">
                  {event.outcome.replaceAll('_', ' ')}
                </Badge>
              )}
              {what !== undefined && <span className="min-w-0 text-sm break-all text-fg-2">{what}</span>}
              <Ago at={event.at} className="ml-auto shrink-0 text-sm text-fg-3" />
            </div>
            <div className="flex flex-wrap items-start gap-x-3 text-sm text-fg-2">
              {who?.(event)}
              <Collapsible
                title={
                  <>
                    Details<span className="sr-only"> of number {event.seq}</span>
                  </>
                }
                className="min-w-0 flex-1"
              >
                <dl className="grid grid-cols-[auto_minmax(0,1fr)] gap-x-4 gap-y-1 rounded-md bg-sunken p-2.5 text-xs">
                  {facts(event).map(([name, value], index) => (
                    <div key={index} className="contents">
                      <dt className="text-fg-2">{name}</dt>
                      <dd className="font-mono break-all text-fg">{value}</dd>
                    </div>
                  ))}
                </dl>
              </Collapsible>
            </div>
          </ListRow>
        );
      })}
    </List>
  );
}

/** Reads the next page of a long list, by a button: what is read is never more than what is wanted. */
export function More({
  query,
}: {
  query: {
    hasNextPage: boolean;
    isFetchingNextPage: boolean;
    isFetchNextPageError: boolean;
    error: unknown;
    fetchNextPage: () => Promise<unknown>;
  };
}) {
  if (!query.hasNextPage) return null;
  return (
    <div className="mt-4 flex flex-col items-center gap-3">
      {query.isFetchNextPageError && <ErrorNote error={query.error} className="w-full" />}
      <Button busy={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
        Show more
      </Button>
    </div>
  );
}
