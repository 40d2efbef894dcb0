import { Activity } from 'lucide-react';
import { useActivity } from '@/api/account';
import { EmptyState } from '@/ui/empty';
import { ErrorState } from '@/ui/error-state';
import { SkeletonRows } from '@/ui/skeleton';
import { SettingsPage } from '../settings/frame';
import { EventList, More } from './event-list';

export function ActivitySettings() {
  const activity = useActivity();
  const events = activity.data?.pages.flatMap((page) => page.events) ?? [];
  return (
    <SettingsPage
      title="Activity"
      lead="What was done with your account, newest first. Is there something that you did not do? Change your password and end all sign-ins."
    >
      {activity.isPending && <SkeletonRows rows={6} label="Loading your activity" />}
      {activity.isError && activity.data === undefined && (
        <ErrorState
          title="Your activity could not be read"
          error={activity.error}
          busy={activity.isFetching}
          onRetry={() => void activity.refetch()}
        />
      )}
      {activity.data !== undefined && events.length === 0 && (
        <EmptyState icon={Activity} title="Nothing yet" className="rounded-lg border border-line py-10">
          Sign-ins, pushes, and changes of your account will be here.
        </EmptyState>
      )}
      {events.length > 0 && <EventList events={events} label="Your activity" />}
      <More query={activity} />
    </SettingsPage>
  );
}
